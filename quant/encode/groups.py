"""Groups side by side: the order of weights in which scales are searched for.

A group is the weights that share a scale: 16 or 32 of a row, one after the other. Sixteen groups
are interleaved, [weight][group], so that a lane of a vector holds one group: sums over a group are
never sums over lanes, and come out the same on every instruction set.
"""

import numpy as np

from edgeqwen.simd.compile import exact_kernel

WIDTH = 16
"""Groups that stand side by side: as many as the longest vector has lanes."""
STRIDE = 4 * WIDTH
"""Bytes from a group's float32 to its next."""


@exact_kernel
def interleave(x, size, out):  # type: ignore[no-untyped-def]
    """float32 [n][size] -> float32 [ceil(n / 16)][size][16], zeros behind the last.

    Returns whether all weights are finite.
    """
    n = x.size // size
    unsound = np.float32(0)
    for batch in range(out.size // (size * WIDTH)):
        first = batch * WIDTH
        for i in range(size):
            to = (batch * size + i) * WIDTH
            for lane in range(WIDTH):
                value = x[(first + lane) * size + i] if first + lane < n else np.float32(0)
                out[to + lane] = value
                unsound += value * np.float32(0)
    return unsound == 0


@exact_kernel
def repeat(x, size, n, out):  # type: ignore[no-untyped-def]
    """The same for ``n`` groups from the start of rows that all are float32 x [columns]."""
    per_row = x.size // size
    for batch in range(out.size // (size * WIDTH)):
        for lane in range(WIDTH):
            group = (batch * WIDTH + lane) % per_row
            for i in range(size):
                out[(batch * size + i) * WIDTH + lane] = x[group * size + i]
