"""Fits of a scale and a minimum to each group: weight = scale * code - minimum.

The codes are whole numbers from 0 to ``top``. What is minimised is the sum of importance * error
squared. Arrays x and w are addresses of weights and importances, side by side (``groups``); all
others are addresses of a float32 for each group.
"""

import numpy as np

from edgeqwen.quant.encode.groups import BETTER, STRIDE, WIDTH
from edgeqwen.simd.compile import exact_array_kernel, inline_kernel
from edgeqwen.simd.ops import (
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


@inline_kernel
def _sums(isa, x, w, size, inverse, offset, top):  # type: ignore[no-untyped-def]
    """Codes of a group by rounding, and the sums that a least-squares fit to them needs."""
    zero = zeros_f32(isa)
    swq, swqq, swxq = zero, zero, zero
    for i in range(size):
        value, weight = load_f32(isa, x + STRIDE * i), load_f32(isa, w + STRIDE * i)
        q = rint(minimum(maximum(fma(value, inverse, offset), zero), top))
        wq = weight * q
        swq = swq + wq
        swqq = fma(wq, q, swqq)
        swxq = fma(wq, value, swxq)
    return swq, swqq, swxq


@inline_kernel
def _solve(isa, sw, swx, swq, swqq, swxq, floor, heavier):  # type: ignore[no-untyped-def]
    """The best scale and minimum for given codes, the minimum at least ``floor``; what they gain.

    The gain is by how much less the error is than without any code, minus what is charged for the
    minimum: ``heavier`` is larger than ``sw`` by that, over its square.
    """
    zero, one = zeros_f32(isa), splat_f32(isa, np.float32(1))
    tiny = splat_f32(isa, np.float32(1e-37))
    determinant = sw * swqq - swq * swq
    least = fma(sw * swqq, splat_f32(isa, np.float32(1e-6)), tiny)
    inverse = divide(one, maximum(determinant, least))
    scale = (sw * swxq - swx * swq) * inverse
    low = (swq * swxq - swqq * swx) * inverse
    # Codes that are all the same leave one of the two free: the minimum is then at its floor.
    low = where_less(determinant, least, floor, low)
    alone = divide(fma(floor, swq, swxq), maximum(swqq, tiny))
    scale = maximum(where_less(floor, low, scale, alone), zero)
    low = maximum(low, floor)
    offset = scale * (swq + swq) - swx - swx - low * heavier
    gain = scale * (swxq + swxq - scale * swqq) + low * offset
    return scale, low, gain


@exact_array_kernel
def fit_ranges(  # type: ignore[no-untyped-def]
    isa, x, w, n, size, top, floor, penalty, reach, tries, polish, scales, minima, costs
):
    """Searches for the scale and the minimum of each of n groups of ``size``.

    Both ends of a group's range are drawn out or in, in ``tries`` steps; codes are rounded and
    fitted anew ``polish`` times from the best. Among equals, small scales come first. For each
    importance, ``penalty`` * minimum**2 is charged: the larger the minima are, the coarser are the
    steps in which a superblock can store them. ``costs`` gets two for each group: by how much its
    error grows with the square of the scale's, and with that of the minimum's.
    """
    zero, one = zeros_f32(isa), splat_f32(isa, np.float32(1))
    tops, floors = splat_f32(isa, np.float32(top)), splat_f32(isa, np.float32(floor))
    tiny, better = splat_f32(isa, np.float32(1e-37)), splat_f32(isa, BETTER)
    burden = splat_f32(isa, np.float32(1 + penalty))
    for group in range(0, n, lanes(isa)):
        at = group // WIDTH * size * STRIDE + 4 * (group % WIDTH)
        values, weights = x + at, w + at
        highest, lowest = load_f32(isa, values), load_f32(isa, values)
        sw, swx = zero, zero
        for i in range(size):
            value, weight = load_f32(isa, values + STRIDE * i), load_f32(isa, weights + STRIDE * i)
            highest, lowest = maximum(value, highest), minimum(value, lowest)
            sw = sw + weight
            swx = fma(weight, value, swx)
        lowest = minimum(lowest, zero - floors)
        # Without codes: the mean.
        heavier, cost = sw * burden, zero
        scale, low = zero, maximum(divide(zero - swx, sw), floors)
        gain = zero - low * (swx + swx + low * heavier)
        span = divide(one, maximum(highest - lowest, tiny))
        for first in range(tries):
            below = splat_f32(isa, np.float32(reach * (1 - 2 * first / (tries - 1))))
            for last in range(tries):
                above = splat_f32(isa, np.float32(reach * (1 - 2 * last / (tries - 1))))
                inverse = (tops + below + above) * span
                offset = zero - fma(lowest, inverse, below)
                swq, swqq, swxq = _sums(isa, values, weights, size, inverse, offset, tops)
                a, b, c = _solve(isa, sw, swx, swq, swqq, swxq, floors, heavier)
                enough = gain * better
                scale, low = where_less(enough, c, a, scale), where_less(enough, c, b, low)
                cost, gain = where_less(enough, c, swqq, cost), where_less(enough, c, c, gain)
        for _ in range(polish):
            inverse = divide(one, maximum(scale, tiny))
            swq, swqq, swxq = _sums(isa, values, weights, size, inverse, low * inverse, tops)
            a, b, c = _solve(isa, sw, swx, swq, swqq, swxq, floors, heavier)
            enough = gain * better
            scale, low = where_less(enough, c, a, scale), where_less(enough, c, b, low)
            cost, gain = where_less(enough, c, swqq, cost), where_less(enough, c, c, gain)
        store(scales + 4 * group, scale)
        store(minima + 4 * group, low)
        store(costs + 4 * group, cost)
        store(costs + 4 * (n + group), sw)


@exact_array_kernel
def settle_ranges(  # type: ignore[no-untyped-def]
    isa, x, w, n, size, top, scales, minima, steps, most, scale_codes, minimum_codes, sums
):
    """Chooses scale_codes and minimum_codes in [0, most] for given superblock steps.

    ``steps`` holds d and dmin for every group; a group's scale is d * scale_code.
    """
    zero, one = zeros_f32(isa), splat_f32(isa, np.float32(1))
    tops, mosts = splat_f32(isa, np.float32(top)), splat_f32(isa, np.float32(most))
    tiny, huge = splat_f32(isa, np.float32(1e-37)), splat_f32(isa, np.float32(3e38))
    for group in range(0, n, lanes(isa)):
        at = group // WIDTH * size * STRIDE + 4 * (group % WIDTH)
        values, weights = x + at, w + at
        d, dmin = load_f32(isa, steps + 4 * group), load_f32(isa, steps + 4 * (n + group))
        near_scale = rint(divide(load_f32(isa, scales + 4 * group), maximum(d, tiny)))
        near_minimum = rint(divide(load_f32(isa, minima + 4 * group), maximum(dmin, tiny)))
        scale_code, minimum_code, error = zero, zero, huge
        for i in range(-1, 2):
            a = minimum(maximum(near_scale + splat_f32(isa, np.float32(i)), zero), mosts)
            scale = d * a
            inverse = divide(one, maximum(scale, tiny))
            for j in range(-1, 2):
                b = minimum(maximum(near_minimum + splat_f32(isa, np.float32(j)), zero), mosts)
                low = dmin * b
                offset = low * inverse
                found = zero
                for k in range(size):
                    value = load_f32(isa, values + STRIDE * k)
                    q = rint(minimum(maximum(fma(value, inverse, offset), zero), tops))
                    miss = fma(scale, q, zero - low) - value
                    found = fma(load_f32(isa, weights + STRIDE * k) * miss, miss, found)
                scale_code = where_less(found, error, a, scale_code)
                minimum_code = where_less(found, error, b, minimum_code)
                error = minimum(found, error)
        store(scale_codes + 4 * group, scale_code)
        store(minimum_codes + 4 * group, minimum_code)
        inverse = divide(one, maximum(d * scale_code, tiny))
        offset = dmin * minimum_code * inverse
        swq, swqq, swxq = _sums(isa, values, weights, size, inverse, offset, tops)
        sw, swx = zero, zero
        for i in range(size):
            value, weight = load_f32(isa, values + STRIDE * i), load_f32(isa, weights + STRIDE * i)
            sw = sw + weight
            swx = fma(weight, value, swx)
        store(sums + 4 * group, scale_code * scale_code * swqq)
        store(sums + 4 * (n + group), scale_code * minimum_code * swq)
        store(sums + 4 * (2 * n + group), minimum_code * minimum_code * sw)
        store(sums + 4 * (3 * n + group), scale_code * swxq)
        store(sums + 4 * (4 * n + group), minimum_code * swx)
