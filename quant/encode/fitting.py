"""From weights to a ``Fit``: the best scales that a type can store, searched for in two steps.

First each group gets the scale, and the minimum, with the smallest sum of importance * error
squared, as if both were free (``scales``, ``ranges``). In types of superblocks, the whole numbers
that stand for them are then chosen by the errors that they really make, and d and dmin are fitted
to the codes by least squares. Everything is computed the same way, operation by operation, on
every machine: the same weights give the same file.
"""

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.encode.codes import look_up_codes, round_to_codes
from edgeqwen.quant.encode.groups import WIDTH, interleave
from edgeqwen.quant.encode.layouts import Bytes, Fit, Floats
from edgeqwen.quant.encode.levels import Levels
from edgeqwen.quant.encode.ranges import fit_ranges, settle_ranges
from edgeqwen.quant.encode.scales import fit_scales, settle_scales
from edgeqwen.quant.encode.schemes import Scheme
from edgeqwen.simd.isa import current_isa

# How far from the weights' own range the ends are tried, in levels, and at how many places: more
# places and rounds gain less than 0.3 % of the error, for twice the time.
_REACH = 0.9
_RANGE_TRIES = 6
_SCALE_TRIES = 8
_POLISH = 2
_ROUNDS = 2
# A minimum without a sign may be anything; far enough below to bound nothing.
_NO_FLOOR = -1e30


def fit(scheme: Scheme, weights: Floats, importance: Floats | None) -> Fit | None:
    """Returns the scales for whole blocks: float32 [n], with an importance for each, or None.

    None where a weight isn't finite, or too large for the type.
    """
    groups = _Groups(scheme, weights, importance)
    if not groups.finite:
        return None
    with np.errstate(all="ignore"):
        found = groups.ranges() if scheme.has_minima else groups.scales()
    for stored in (found.d, found.dmin):
        if stored is not None and not np.isfinite(stored).all():
            return None
    return found


def round_codes(scheme: Scheme, fit: Fit, weights: Floats, codes: Bytes) -> None:
    """Writes each weight's code: float32 [n] -> uint8 [n], counted from the lowest level."""
    if scheme.codebook:
        book = np.array(scheme.codebook, np.float32)
        look_up_codes(weights, scheme.size, (book[1:] + book[:-1]) / 2, fit.scales, codes)
    else:
        minima = np.zeros_like(fit.scales) if fit.minima is None else fit.minima
        bounds = scheme.lowest, scheme.highest
        round_to_codes(weights, scheme.size, *bounds, fit.scales, minima, codes)


class _Groups:
    """The groups of some blocks, side by side, and the search for their scales."""

    def __init__(self, scheme: Scheme, weights: Floats, importance: Floats | None) -> None:
        self.scheme, self.isa = scheme, current_isa()
        self.n = weights.size // scheme.size
        self.padded = -(-self.n // WIDTH) * WIDTH
        self.x = np.empty(self.padded * scheme.size, np.float32)
        self.finite = bool(interleave(weights, scheme.size, self.x))
        self.w = np.ones_like(self.x)
        if importance is not None:
            interleave(importance, scheme.size, self.w)

    def scales(self) -> Fit:
        """The fit of a type without minima."""
        scheme = self.scheme
        levels = Levels(self.isa, scheme.codebook)
        bounds = float(scheme.lowest), float(scheme.highest)
        book = scheme.codebook
        reach = _REACH * (book[-1] - book[-2]) / 1.5 if book else _REACH
        found = self._floats()
        arrays = self.x.ctypes.data, self.w.ctypes.data, self.padded, scheme.size, *bounds
        fit_scales(levels, *arrays, reach, _SCALE_TRIES, _POLISH, found.ctypes.data)
        if scheme.multiples is None:
            d = found[: self.n].astype(np.float16)
            return Fit(d.astype(np.float32), None, d)
        least, most = scheme.multiples
        codes, sums = self._floats(), self._floats(2)
        free = found[: self.n].reshape(-1, scheme.groups)
        largest = np.abs(free).argmax(axis=1)
        d = (free[np.arange(len(free)), largest] / np.float32(least)).astype(np.float16)
        for step in range(_ROUNDS):
            if step:
                squares, products = self._by_block(sums)
                better = products / np.maximum(squares, np.float32(1e-37))
                d = np.where(squares > 0, better, d).astype(np.float16)
            steps = self._repeated(d)
            settle_scales(
                levels,
                *arrays,
                *(found.ctypes.data, steps.ctypes.data, float(least), float(most)),
                *(codes.ctypes.data, sums.ctypes.data),
            )
        codes = codes[: self.n]
        return Fit(steps[: self.n] * codes, None, d, scale_codes=codes.astype(np.int16))

    def ranges(self) -> Fit:
        """The fit of a type with minima."""
        scheme = self.scheme
        scales, minima = self._floats(), self._floats()
        free = scales.ctypes.data, minima.ctypes.data
        sides = self.x.ctypes.data, self.w.ctypes.data
        arrays = *sides, self.padded, scheme.size, float(scheme.highest)
        floor = _NO_FLOOR if scheme.multiples is None else 0.0
        fit_ranges(self.isa, *arrays, floor, _REACH, _RANGE_TRIES, _POLISH, *free)
        if scheme.multiples is None:
            d, m = scales[: self.n].astype(np.float16), (-minima[: self.n]).astype(np.float16)
            return Fit(d.astype(np.float32), -m.astype(np.float32), d, m)
        most = np.float32(scheme.multiples[1])
        codes, sums = self._floats(2), self._floats(5)
        d, dmin = (
            (values[: self.n].reshape(-1, scheme.groups).max(axis=1) / most).astype(np.float16)
            for values in (scales, minima)
        )
        for step in range(_ROUNDS):
            if step:
                d, dmin = _better_steps(d, dmin, *self._by_block(sums))
            steps = np.stack([self._repeated(d), self._repeated(dmin)])
            settle_ranges(
                self.isa,
                *arrays,
                *(*free, steps.ctypes.data, float(most)),
                *(codes.ctypes.data, codes[1].ctypes.data, sums.ctypes.data),
            )
        products = steps[:, : self.n] * codes[:, : self.n]
        stored = codes[:, : self.n].astype(np.int16)
        return Fit(products[0], products[1], d, dmin, stored[0], stored[1])

    def _floats(self, rows: int = 0) -> Floats:
        return np.empty((rows, self.padded) if rows else self.padded, np.float32)

    def _repeated(self, d: npt.NDArray[np.float16]) -> Floats:
        """A block's float16 for each of its groups."""
        result = np.zeros(self.padded, np.float32)
        result[: self.n] = np.repeat(d.astype(np.float32), self.scheme.groups)
        return result

    def _by_block(self, sums: Floats) -> Floats:
        """Sums over the groups of each block, one after the other: float32 [sums][blocks]."""
        groups = sums[:, : self.n].reshape(len(sums), -1, self.scheme.groups)
        total = groups[..., 0].copy()
        for i in range(1, self.scheme.groups):
            total += groups[..., i]
        return total


def _better_steps(
    d: npt.NDArray[np.float16], dmin: npt.NDArray[np.float16], *sums: Floats
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Returns the d and dmin with the least error for codes that ``settle_ranges`` has chosen."""
    dd, dm, mm, dx, mx = sums
    determinant = dd * mm - dm * dm
    solvable = determinant > np.float32(1e-5) * dd * mm
    inverse = np.float32(1) / np.where(solvable, determinant, np.float32(1))
    better_d, better_dmin = (dx * mm - dm * mx) * inverse, (dm * dx - dd * mx) * inverse
    solvable &= (better_d > 0) & (better_dmin >= 0)
    return (
        np.where(solvable, better_d, d).astype(np.float16),
        np.where(solvable, better_dmin, dmin).astype(np.float16),
    )
