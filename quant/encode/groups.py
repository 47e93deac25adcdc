"""Groups side by side: the order of weights in which scales are searched for.

A group is the weights that share a scale: 16 or 32 of a row, one after the other. Sixteen groups
are interleaved, [weight][group], so that a lane of a vector holds one group: sums over a group are
never sums over lanes, and come out the same on every instruction set.
"""

import numpy as np

from edgeqwen.simd.compile import exact_array_kernel
from edgeqwen.simd.ops import divide, fma, lanes, load_f32, splat_f32, store, zeros_f32

WIDTH = 16
"""Groups that stand side by side: as many as the longest vector has lanes."""
STRIDE = 4 * WIDTH
"""Bytes from a group's float32 to its next."""
BETTER = np.float32(1 + 1e-6)
"""By what factor a fit must gain more than the ones before it to be better.

What is less may only be how float32 was rounded. Of weights with few values there are many fits
without any error, and if chance chose one for each group, no d of a superblock would suit them all.
"""
# What carries a weight of 2**40 and more, which no type can say, beyond the largest float32.
_TOO_FAR = np.float32(2.0**88)


@exact_array_kernel
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


@exact_array_kernel
def centre(isa, x, w, n, size, centres):  # type: ignore[no-untyped-def]
    """Takes the mean, weighed by w, from the weights of each of n groups; ``centres`` gets it.

    x and w are addresses of groups side by side. Where a group is far from 0, float32 sums of its
    squares keep little of how its weights differ.
    """
    for group in range(0, n, lanes(isa)):
        at = group // WIDTH * size * STRIDE + 4 * (group % WIDTH)
        sw, swx = splat_f32(isa, np.float32(1e-37)), zeros_f32(isa)
        for i in range(size):
            weight = load_f32(isa, w + at + STRIDE * i)
            sw = sw + weight
            swx = fma(weight, load_f32(isa, x + at + STRIDE * i), swx)
        mean = divide(swx, sw)
        for i in range(size):
            place = x + at + STRIDE * i
            store(place, load_f32(isa, place) - mean)
        store(centres + 4 * group, mean)
