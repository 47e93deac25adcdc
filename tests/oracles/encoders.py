"""Plain numpy twins of the encoders' kernels, over all groups at once, and searches without limits.

``x`` and ``w`` are weights and importances, float32 [groups][size]. The twins compute in float32,
operation by operation as the kernels do: what they find is the same, bit for bit.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.encode.layouts import Fit
from edgeqwen.quant.encode.schemes import Scheme

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]

TINY = np.float32(1e-37)


def fma(x: Floats, y: Floats, z: Floats) -> Floats:
    """x * y + z, rounded once: the product is exact in float64."""
    return (x.astype(np.float64) * y + z).astype(np.float32)


def larger(x: Floats, y: Floats) -> Floats:
    """The larger of two, the second where one is NaN."""
    found: Floats = np.where(x > y, x, y)
    return found


def smaller(x: Floats, y: Floats) -> Floats:
    """The smaller of two, the second where one is NaN."""
    found: Floats = np.where(x < y, x, y)
    return found


def interleave(x: Floats) -> Floats:
    """[groups][size] -> [groups / 16][size][16], filled up with zeros."""
    n, size = x.shape
    padded = np.zeros((-(-n // 16) * 16, size), np.float32)
    padded[:n] = x
    return padded.reshape(-1, 16, size).transpose(0, 2, 1).copy()


class Scales:
    """Searches for scales: ``book`` are the levels of a codebook, or none for whole numbers."""

    def __init__(self, x: Floats, w: Floats, bounds: tuple[int, int], book: Sequence[int]) -> None:
        self.x, self.w, self.book = x, w, np.array(book, np.float32)
        self.low, self.high = np.float32(bounds[0]), np.float32(bounds[1])
        self.zero = np.zeros(len(x), np.float32)

    def level(self, place: Floats) -> Floats:
        if not len(self.book):
            return np.rint(smaller(larger(place, self.low), self.high))
        middles = (self.book[1:] + self.book[:-1]) / 2
        found: Floats = self.book[(place[:, None] > middles).sum(axis=1)]
        return found

    def sums(self, inverse: Floats) -> tuple[Floats, Floats]:
        slq, slx = self.zero, self.zero
        for value, weight in zip(self.x.T, self.w.T, strict=True):
            level = self.level(value * inverse)
            slq = fma(weight * level, level, slq)
            slx = fma(weight * level, value, slx)
        return slq, slx

    def fit(self, reach: float, tries: int, polish: int) -> Floats:
        span = 1 / larger(np.abs(self.x).max(axis=1), TINY)
        scale, gain = self.zero, self.zero

        def offer(inverse: Floats) -> tuple[Floats, Floats]:
            slq, slx = self.sums(inverse)
            found = slx / larger(slq, TINY)
            return np.where(gain < found * slx, found, scale), larger(found * slx, gain)

        first, last = float(self.high) - reach, reach - float(self.low)
        for step in range(tries):
            place = first + step * (last - first) / (tries - 1)
            for signed in (-place, place):
                scale, gain = offer(np.float32(signed) * span)
        for _ in range(polish):
            scale, gain = offer(1 / scale)
        return scale

    def settle(
        self, scales: Floats, steps: Floats, multiples: tuple[int, int]
    ) -> tuple[Floats, Floats]:
        """Returns the codes of the scales, and the two sums for each group."""
        least, most = map(np.float32, multiples)
        near = np.rint(scales / steps)
        best, error = self.zero, self.zero + np.float32(3e38)
        for i in (-1, 0, 1):
            code = smaller(larger(near + np.float32(i), least), most)
            scale, found = steps * code, self.zero
            for value, weight in zip(self.x.T, self.w.T, strict=True):
                miss = fma(scale, self.level(value * (1 / scale)), -value)
                found = fma(weight * miss, miss, found)
            best, error = np.where(found < error, code, best), smaller(found, error)
        slq, slx = self.sums(1 / (steps * best))
        return best, np.stack([best * best * slq, best * slx])


class Ranges:
    """Searches for scales and minima; codes are from 0 to ``top``."""

    def __init__(self, x: Floats, w: Floats, top: int) -> None:
        self.x, self.w, self.top = x, w, np.float32(top)
        self.zero = np.zeros(len(x), np.float32)
        self.sw, self.swx = self.zero, self.zero
        for value, weight in zip(x.T, w.T, strict=True):
            self.sw, self.swx = self.sw + weight, fma(weight, value, self.swx)

    def code(self, value: Floats, inverse: Floats, offset: Floats) -> Floats:
        return np.rint(smaller(larger(fma(value, inverse, offset), self.zero), self.top))

    def sums(self, inverse: Floats, offset: Floats) -> tuple[Floats, Floats, Floats]:
        swq, swqq, swxq = self.zero, self.zero, self.zero
        for value, weight in zip(self.x.T, self.w.T, strict=True):
            q = self.code(value, inverse, offset)
            swq = swq + weight * q
            swqq, swxq = fma(weight * q, q, swqq), fma(weight * q, value, swxq)
        return swq, swqq, swxq

    def fit(self, floor: float, reach: float, tries: int, polish: int) -> tuple[Floats, Floats]:
        """Returns scales and minima, the latter at least ``floor``."""
        least = self.zero + np.float32(floor)
        lowest = smaller(self.x.min(axis=1), -least)
        span = 1 / larger(self.x.max(axis=1) - lowest, TINY)
        scale, low = self.zero, larger(-self.swx / self.sw, least)
        gain = -low * (self.swx + self.swx + low * self.sw)

        def offer(inverse: Floats, offset: Floats) -> tuple[Floats, Floats, Floats]:
            a, b, c = self._solve(*self.sums(inverse, offset), least)
            better = gain < c
            return np.where(better, a, scale), np.where(better, b, low), larger(c, gain)

        places = [np.float32(reach * (2 * i / (tries - 1) - 1)) for i in range(tries)]
        for below in places:
            for above in places:
                inverse = (self.top + below + above) * span
                scale, low, gain = offer(inverse, -fma(lowest, inverse, self.zero + below))
        for _ in range(polish):
            inverse = 1 / larger(scale, TINY)
            scale, low, gain = offer(inverse, low * inverse)
        return scale, low

    def _solve(
        self, swq: Floats, swqq: Floats, swxq: Floats, least: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """The best scale and minimum for given codes, and what they gain."""
        sw, swx = self.sw, self.swx
        determinant = sw * swqq - swq * swq
        enough = fma(sw * swqq, self.zero + np.float32(1e-6), self.zero + TINY)
        inverse = 1 / larger(determinant, enough)
        low = np.where(determinant < enough, least, (swq * swxq - swqq * swx) * inverse)
        both = (sw * swxq - swx * swq) * inverse
        alone = fma(least, swq, swxq) / larger(swqq, TINY)
        scale = larger(np.where(least < low, both, alone), self.zero)
        low = larger(low, least)
        gain = scale * (swxq + swxq - scale * swqq) + low * (
            scale * (swq + swq) - swx - swx - low * sw
        )
        return scale, low, gain

    def settle(
        self, free: tuple[Floats, Floats], steps: tuple[Floats, Floats], most: int
    ) -> tuple[Floats, Floats, Floats]:
        """Returns the codes of scales and of minima, and the five sums for each group."""
        d, dmin = steps
        near = [np.rint(f / larger(step, TINY)) for f, step in zip(free, steps, strict=True)]
        best = [self.zero, self.zero]
        error = self.zero + np.float32(3e38)

        def code(which: int, i: int) -> Floats:
            moved = near[which] + np.float32(i)
            return smaller(larger(moved, self.zero), np.float32(most))

        for a in (code(0, i) for i in (-1, 0, 1)):
            scale = d * a
            inverse = 1 / larger(scale, TINY)
            for b in (code(1, i) for i in (-1, 0, 1)):
                low, found = dmin * b, self.zero
                for value, weight in zip(self.x.T, self.w.T, strict=True):
                    q = self.code(value, inverse, low * inverse)
                    miss = fma(scale, q, -low) - value
                    found = fma(weight * miss, miss, found)
                better = found < error
                best = [np.where(better, a, best[0]), np.where(better, b, best[1])]
                error = smaller(found, error)
        a, b = best
        inverse = 1 / larger(d * a, TINY)
        swq, swqq, swxq = self.sums(inverse, dmin * b * inverse)
        sums = [a * a * swqq, a * b * swq, b * b * self.sw, a * swxq, b * self.swx]
        return a, b, np.stack(sums)


def round_codes(scheme: Scheme, fit: Fit, x: Floats) -> Codes:
    """Rounds weights of any shape to codes, counted from the lowest level: uint8 [groups][size]."""
    groups = x.reshape(-1, scheme.size)
    scales = fit.scales[:, None]
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    if scheme.codebook:
        book = np.array(scheme.codebook, np.float32)
        above = (groups * inverse)[..., None] > (book[1:] + book[:-1]) / 2
        return above.sum(axis=-1).astype(np.uint8)
    minima = np.float32(0) if fit.minima is None else fit.minima[:, None]
    place = groups * inverse + (minima * inverse + np.float32(0.5 - scheme.lowest))
    codes = np.clip(place, 0, scheme.highest - scheme.lowest + 0.5)
    return codes.astype(np.uint8)


def decode(scheme: Scheme, fit: Fit, codes: Codes) -> Floats:
    """What codes mean: float32 [groups][size]."""
    groups = codes.reshape(-1, scheme.size)
    if scheme.codebook:
        levels = np.array(scheme.codebook, np.float32)[groups]
    else:
        levels = groups.astype(np.float32) + np.float32(scheme.lowest)
    scaled: Floats = fit.scales[:, None] * levels
    return scaled if fit.minima is None else scaled - fit.minima[:, None]


def round_with_feedback(
    scheme: Scheme, x: Floats, factor: Floats, fit: Fit, first: int, last: int
) -> tuple[Codes, Floats, Floats]:
    """Rounds columns [first, last) of x, float32 [rows][n], which is changed, column by column.

    Returns their codes, what they mean and the errors over the factor's diagonal, [rows][columns].
    """
    n_rows, n = x.shape
    scales = fit.scales.reshape(n_rows, -1)
    minima = np.zeros_like(scales) if fit.minima is None else fit.minima.reshape(n_rows, -1)
    codes, rounded, errors = [], [], []
    for column in range(first, last):
        group = (column - first) // scheme.size
        scale, low, value = scales[:, group], minima[:, group], x[:, column].copy()
        place = np.divide(value + low, scale, out=np.zeros_like(scale), where=scale != 0)
        if scheme.codebook:
            book = np.array(scheme.codebook, np.float32)
            code = (place[:, None] > (book[1:] + book[:-1]) / 2).sum(axis=1)
            level = book[code]
        else:
            level = np.rint(np.clip(place, scheme.lowest, scheme.highest))
            code = level - scheme.lowest
        meant = scale * level - low
        error = (value - meant) / factor[column, column]
        x[:, column + 1 :] -= error[:, None] * factor[column, column + 1 : n]
        codes.append(code.astype(np.uint8))
        rounded.append(meant)
        errors.append(error)
    return np.stack(codes, axis=1), np.stack(rounded, axis=1), np.stack(errors, axis=1)


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
