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
# What carries a weight of 2**40 and more, which no type can say, beyond the largest float32.
_TOO_FAR = np.float32(2.0**88)


@exact_kernel
def interleave(x, size, out):  # type: ignore[no-untyped-def]
    """float32 [n][size] -> float32 [ceil(n / 16)][size][16], zeros behind the last.

    Returns whether all are finite, and small enough that no sum over a group overflows.
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
                # Infinity and NaN times 0 are NaN, which stays.
                unsound += value * _TOO_FAR * np.float32(0)
    return unsound == 0
