"""Plain numpy twins of the encoders' kernels, over all groups at once.

``x`` and ``w`` are weights and importances, float32 [groups][size]. The twins compute in float32,
operation by operation as the kernels do: what they find is the same, bit for bit.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.encode.groups import BETTER
from edgeqwen.quant.encode.layouts import Fit
from edgeqwen.quant.encode.schemes import Scheme

Floats = npt.NDArray[np.float32]
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

    def fit(self, reach: float, tries: int, polish: int) -> tuple[Floats, Floats]:
        """Returns scales, and what their errors cost."""
        span = 1 / larger(np.abs(self.x).max(axis=1), TINY)
        scale, gain = self.zero, self.zero

        def offer(inverse: Floats) -> tuple[Floats, Floats]:
            slq, slx = self.sums(inverse)
            found = slx / larger(slq, TINY)
            better = gain * BETTER < found * slx
            return np.where(better, found, scale), np.where(better, found * slx, gain)

        low, high = float(self.low), float(self.high)
        for step in range(tries):
            place = reach - low - step * (2 * reach - low - high) / (tries - 1)
            for signed in (-place, place):
                scale, gain = offer(np.float32(signed) * span)
        for _ in range(polish):
            scale, gain = offer(1 / scale)
        return scale, gain / larger(scale * scale, TINY)

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

    def fit(
        self, floor: float, penalty: float, reach: float, tries: int, polish: int
    ) -> tuple[Floats, Floats, Floats]:
        """Returns scales, minima, the latter at least ``floor``, and what errors of scales cost."""
        least = self.zero + np.float32(floor)
        lowest = smaller(self.x.min(axis=1), -least)
        span = 1 / larger(self.x.max(axis=1) - lowest, TINY)
        scale, low = self.zero, larger(-self.swx / self.sw, least)
        heavier = self.sw * np.float32(1 + penalty)
        kept = scale, low, self.zero, -low * (self.swx + self.swx + low * heavier)

        def offer(inverse: Floats, offset: Floats) -> tuple[Floats, ...]:
            swq, swqq, swxq = self.sums(inverse, offset)
            a, b, gain = self._solve(swq, swqq, swxq, least, heavier)
            better = kept[3] * BETTER < gain
            offered = zip((a, b, swqq, gain), kept, strict=True)
            return tuple(np.where(better, new, old) for new, old in offered)

        places = [np.float32(reach * (1 - 2 * i / (tries - 1))) for i in range(tries)]
        for below in places:
            for above in places:
                inverse = (self.top + below + above) * span
                kept = offer(inverse, -fma(lowest, inverse, self.zero + below))
        for _ in range(polish):
            inverse = 1 / larger(kept[0], TINY)
            kept = offer(inverse, kept[1] * inverse)
        return kept[:3]

    def _solve(
        self, swq: Floats, swqq: Floats, swxq: Floats, least: Floats, heavier: Floats
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
            scale * (swq + swq) - swx - swx - low * heavier
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


def centre(x: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Returns x without its groups' means, weighed by w, and these."""
    sw, swx = np.full(len(x), 1e-37, np.float32), np.zeros(len(x), np.float32)
    for value, weight in zip(x.T, w.T, strict=True):
        sw, swx = sw + weight, fma(weight, value, swx)
    means = swx / sw
    return x - means[:, None], means


def find_steps(
    free: Floats, costs: Floats, multiples: tuple[int, int], reach: float, tries: int
) -> Floats:
    """Returns a step for each block; ``free`` and ``costs`` are float32 [blocks][groups]."""
    least, most = map(np.float32, multiples)
    zero = np.zeros(len(free), np.float32)
    top, bottom = larger(free.max(axis=1), zero), smaller(free.min(axis=1), zero)
    upright = larger(bottom / least, top / most)
    turned = larger(np.abs(top / least), np.abs(bottom / most))
    first = np.where(turned < upright, -turned, upright)
    best, error = first, zero + np.float32(3e38)
    for step in range(tries):
        more = reach * ((step + 1) // 2) / (tries // 2) * (1 if step % 2 else -1)
        d = first * np.float32(multiples[1] / (multiples[1] + more))
        found = zero
        for scale, cost in zip(free.T, costs.T, strict=True):
            miss = fma(d, np.rint(smaller(larger(scale * (1 / d), least), most)), -scale)
            found = fma(cost * miss, miss, found)
        best, error = np.where(found < error, d, best), smaller(found, error)
    return best


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
