"""Fits of a scale to each group: weight = scale * level, of either sign.

What is minimised is the sum of importance * error squared. Arrays x and w are addresses of weights
and importances, side by side (``groups``); all others are addresses of a float32 for each group.
"""

import numpy as np

from edgeqwen.quant.encode.groups import BETTER, STRIDE, WIDTH
from edgeqwen.quant.encode.levels import nearest
from edgeqwen.simd.compile import exact_array_kernel, inline_kernel
from edgeqwen.simd.ops import (
    absolute,
    divide,
    fma,
    isa_of,
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


@inline_kernel
def _sums(levels, x, w, size, inverse, lowest, highest):  # type: ignore[no-untyped-def]
    """Levels of a group by rounding, and the sums that a least-squares fit to them needs."""
    isa = isa_of(levels)
    slq, slx = zeros_f32(isa), zeros_f32(isa)
    for i in range(size):
        value = load_f32(isa, x + STRIDE * i)
        level = nearest(levels, value * inverse, lowest, highest)
        weighted = load_f32(isa, w + STRIDE * i) * level
        slq = fma(weighted, level, slq)
        slx = fma(weighted, value, slx)
    return slq, slx


@exact_array_kernel
def fit_scales(levels, x, w, n, size, lowest, highest, reach, tries, polish, scales, costs):  # type: ignore[no-untyped-def]
    """Searches for the scale of each of n groups of ``size``.

    The largest weight is put ``reach`` outside the farther bound, ``reach`` inside the nearer one,
    and at ``tries - 2`` places between, with both signs; levels are rounded and fitted anew
    ``polish`` times from the best. Among equals, the smallest scale comes first: a larger one would
    make the steps of the whole superblock coarser. ``costs`` gets by how much a group's error grows
    with the square of its scale's.
    """
    isa = isa_of(levels)
    zero, one = zeros_f32(isa), splat_f32(isa, np.float32(1))
    tiny, better = splat_f32(isa, np.float32(1e-37)), splat_f32(isa, BETTER)
    low, high = splat_f32(isa, np.float32(lowest)), splat_f32(isa, np.float32(highest))
    for group in range(0, n, lanes(isa)):
        at = group // WIDTH * size * STRIDE + 4 * (group % WIDTH)
        values, weights = x + at, w + at
        largest = zero
        for i in range(size):
            largest = maximum(absolute(load_f32(isa, values + STRIDE * i)), largest)
        span = divide(one, maximum(largest, tiny))
        scale, gain = zero, zero
        for step in range(2 * tries):
            place = reach - lowest - (step >> 1) * (2 * reach - lowest - highest) / (tries - 1)
            place = place if step & 1 else -place
            inverse = splat_f32(isa, np.float32(place)) * span
            slq, slx = _sums(levels, values, weights, size, inverse, low, high)
            found = divide(slx, maximum(slq, tiny))
            enough = gain * better
            scale = where_less(enough, found * slx, found, scale)
            gain = where_less(enough, found * slx, found * slx, gain)
        for _ in range(polish):
            slq, slx = _sums(levels, values, weights, size, divide(one, scale), low, high)
            found = divide(slx, maximum(slq, tiny))
            enough = gain * better
            scale = where_less(enough, found * slx, found, scale)
            gain = where_less(enough, found * slx, found * slx, gain)
        store(scales + 4 * group, scale)
        store(costs + 4 * group, divide(gain, maximum(scale * scale, tiny)))


@exact_array_kernel
def settle_scales(  # type: ignore[no-untyped-def]
    levels, x, w, n, size, lowest, highest, scales, steps, least, most, codes, sums
):
    """Chooses the whole number in [least, most] by which each group's step is multiplied.

    ``steps`` is the superblock's d, for every group. ``sums`` gets two for each group, from which
    a better d follows: the sums of importance * (code * level)**2 and code * level * weight.
    """
    isa = isa_of(levels)
    zero, one = zeros_f32(isa), splat_f32(isa, np.float32(1))
    huge = splat_f32(isa, np.float32(3e38))
    low, high = splat_f32(isa, np.float32(lowest)), splat_f32(isa, np.float32(highest))
    floor, ceiling = splat_f32(isa, np.float32(least)), splat_f32(isa, np.float32(most))
    for group in range(0, n, lanes(isa)):
        at = group // WIDTH * size * STRIDE + 4 * (group % WIDTH)
        values, weights = x + at, w + at
        d = load_f32(isa, steps + 4 * group)
        # A step of 0 makes NaN, which minimum and maximum drop.
        near = rint(divide(load_f32(isa, scales + 4 * group), d))
        best, error = zero, huge
        for i in range(-1, 2):
            code = near + splat_f32(isa, np.float32(i))
            code = minimum(maximum(code, floor), ceiling)
            scale = d * code
            inverse = divide(one, scale)
            found = zero
            for k in range(size):
                value = load_f32(isa, values + STRIDE * k)
                miss = fma(scale, nearest(levels, value * inverse, low, high), zero - value)
                found = fma(load_f32(isa, weights + STRIDE * k) * miss, miss, found)
            best = where_less(found, error, code, best)
            error = minimum(found, error)
        store(codes + 4 * group, best)
        slq, slx = _sums(levels, values, weights, size, divide(one, d * best), low, high)
        store(sums + 4 * group, best * best * slq)
        store(sums + 4 * (n + group), best * slx)
