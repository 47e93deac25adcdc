"""The steps with which superblocks begin: d of which whole multiples are near to the free scales.

Here a lane is a superblock: arrays are addresses of float32 [groups of a block][blocks].
"""

import numpy as np

from edgeqwen.simd.compile import exact_array_kernel
from edgeqwen.simd.ops import (
    absolute,
    divide,
    fma,
    lanes,
    load_f32,
    maximum,
    minimum,
    rint,
    splat_f32,
    store,
    where_less,
    zeros_f32,
)


@exact_array_kernel
def find_steps(isa, free, costs, n_groups, n_blocks, least, most, reach, tries, steps):  # type: ignore[no-untyped-def]
    """Searches for the step d of each block with the smallest sum of cost * (free - d * code)**2.

    Codes are whole numbers in [least, most], ``least`` at most 0. The first step tried is the
    smallest, of either sign, that leaves no scale out of bounds. With the others, what is ``most``
    times that one is up to ``reach`` multiples less or more.
    """
    zero, one = zeros_f32(isa), splat_f32(isa, np.float32(1))
    floor, ceiling = splat_f32(isa, np.float32(least)), splat_f32(isa, np.float32(most))
    for block in range(0, n_blocks, lanes(isa)):
        top, bottom = zero, zero
        for i in range(n_groups):
            scale = load_f32(isa, free + 4 * (i * n_blocks + block))
            top, bottom = maximum(scale, top), minimum(scale, bottom)
        # Without negative codes, 0 / 0 is NaN, which maximum drops, and the other sign infinite.
        upright = maximum(divide(bottom, floor), divide(top, ceiling))
        turned = maximum(absolute(divide(top, floor)), absolute(divide(bottom, ceiling)))
        first = where_less(turned, upright, zero - turned, upright)
        best, error = first, splat_f32(isa, np.float32(3e38))
        for step in range(tries):
            more = reach * ((step + 1) >> 1) / (tries >> 1)
            more = more if step & 1 else -more
            d = first * splat_f32(isa, np.float32(most / (most + more)))
            inverse = divide(one, d)
            found = zero
            for i in range(n_groups):
                at = 4 * (i * n_blocks + block)
                scale = load_f32(isa, free + at)
                # A step of 0 makes NaN here, which becomes a bound.
                code = rint(minimum(maximum(scale * inverse, floor), ceiling))
                miss = fma(d, code, zero - scale)
                found = fma(load_f32(isa, costs + at) * miss, miss, found)
            best = where_less(found, error, d, best)
            error = minimum(found, error)
        store(steps + 4 * block, best)
