"""Searches for the smallest errors that a type's codes can make, whatever they cost.

``x`` and ``w`` are weights and importances, float32 [groups][size].
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.encode.schemes import Scheme

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def least_error(scheme: Scheme, x: Floats, w: Floats) -> Doubles:
    """Returns the smallest sum of w * error**2 of each group, as if scales could be any numbers.

    Codes are rounded for a fine grid of scales (and minima), and fitted to by least squares.
    """
    groups, importance = x.astype(np.float64), w.astype(np.float64)
    search = _least_with_minima if scheme.has_minima else _least_with_scales
    return search(scheme, groups, importance)


def _least_with_scales(scheme: Scheme, x: Doubles, w: Doubles) -> Doubles:
    largest = np.abs(x).max(axis=1, keepdims=True)
    level = _rounding(scheme)
    best = np.full(len(x), np.inf)
    most = max(-scheme.lowest, scheme.highest)
    for place in np.linspace(0.5 * most, 1.3 * most, 240):
        for sign in (-1, 1):
            levels = level(x * (sign * place / largest))
            squares = (w * levels * levels).sum(axis=1)
            scale = (w * levels * x).sum(axis=1) / np.maximum(squares, 1e-300)
            errors = x - scale[:, None] * levels
            best = np.minimum(best, (w * errors**2).sum(axis=1))
    return best


def _least_with_minima(scheme: Scheme, x: Doubles, w: Doubles) -> Doubles:
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    if scheme.multiples is not None:
        low = np.minimum(low, 0)
    top, sw, swx = scheme.highest, w.sum(axis=1), (w * x).sum(axis=1)
    best = np.full(len(x), np.inf)
    # Ends drawn in, or out, by parts of the range; far in where there are few levels.
    inner = 0.35 if top <= 3 else 0.12
    for below in np.linspace(-0.08, inner, 28):
        for above in np.linspace(-0.08, inner, 28):
            start, stop = low + below * (high - low), high - above * (high - low)
            q = np.clip(np.rint((x - start) / (stop - start) * top), 0, top)
            swq, swqq, swxq = ((w * f).sum(axis=1) for f in (q, q * q, q * x))
            determinant = sw * swqq - swq * swq
            with np.errstate(all="ignore"):
                scale = (sw * swxq - swx * swq) / determinant
                shift = (swx * swqq - swq * swxq) / determinant
            if scheme.multiples is not None:
                scale = np.where(shift > 0, swxq / np.maximum(swqq, 1e-300), scale)
                shift = np.minimum(shift, 0)
            errors = x - scale[:, None] * q - shift[:, None]
            sound = (determinant > 1e-9 * sw * swqq) & (scale >= 0)
            best = np.where(sound, np.minimum(best, (w * errors**2).sum(axis=1)), best)
    return best


def _rounding(scheme: Scheme) -> Callable[[Doubles], Doubles]:
    if not scheme.codebook:
        return lambda place: np.clip(np.rint(place), scheme.lowest, scheme.highest)
    book = np.array(scheme.codebook, np.float64)
    return lambda place: book[np.searchsorted((book[1:] + book[:-1]) / 2, place)]
