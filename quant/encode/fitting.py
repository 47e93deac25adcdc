"""From weights to a ``Fit``: the best scales that a type can store, searched for step by step.

First each group gets the scale, and the minimum, with the smallest sum of importance * error
squared, as if both were free (``scales``, ``ranges``). In types of superblocks, a first d and dmin
are then chosen that have multiples near to these (``steps``); the whole numbers, by the errors that
they really make; and a better d and dmin, by least squares. Everything is computed the same way,
operation by operation, on every machine: the same weights give the same file.
"""

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.encode.codes import look_up_codes, round_to_codes
from edgeqwen.quant.encode.groups import WIDTH, centre, interleave
from edgeqwen.quant.encode.layouts import Bytes, Fit, Floats
from edgeqwen.quant.encode.levels import Levels
from edgeqwen.quant.encode.ranges import fit_ranges, settle_ranges
from edgeqwen.quant.encode.scales import fit_scales, settle_scales
from edgeqwen.quant.encode.schemes import Scheme
from edgeqwen.quant.encode.steps import find_steps
from edgeqwen.simd.isa import current_isa

# How far from the weights' own range the ends are tried, in levels, and at how many places: more
# places and rounds gain less than 0.3 % of the error, for twice the time.
_REACH = 0.9
_RANGE_TRIES = 6
_SCALE_TRIES = 8
_POLISH = 2
_ROUNDS = 2
# By how much the multiple that the largest scale becomes is moved, up and down, in so many tries.
_STEP_REACH = 3.0
_STEP_TRIES = 21
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
        found, costs = self._floats(), self._floats()
        arrays = self.x.ctypes.data, self.w.ctypes.data, self.padded, scheme.size, *bounds
        free = found.ctypes.data, costs.ctypes.data
        fit_scales(levels, *arrays, reach, _SCALE_TRIES, _POLISH, *free)
        if scheme.multiples is None:
            d = found[: self.n].astype(np.float16)
            return Fit(d.astype(np.float32), None, d)
        least, most = scheme.multiples
        codes, sums = self._floats(), self._floats(2)
        d = self._first_steps(found, costs, least, most)
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
        scales, minima, costs = self._floats(), self._floats(), self._floats(2)
        free = scales.ctypes.data, minima.ctypes.data
        sides = self.x.ctypes.data, self.w.ctypes.data
        arrays = *sides, self.padded, scheme.size, float(scheme.highest)
        search = _REACH, _RANGE_TRIES, _POLISH, *free, costs.ctypes.data
        if scheme.multiples is None:
            centres = self._floats()
            centre(self.isa, *sides, self.padded, scheme.size, centres.ctypes.data)
            fit_ranges(self.isa, *arrays, _NO_FLOOR, 0.0, *search)
            d = scales[: self.n].astype(np.float16)
            # A scale that is too small for a float16 leaves one level, best at the mean.
            low = np.where(d == 0, np.float32(0), minima[: self.n])
            m = (centres[: self.n] - low).astype(np.float16)
            return Fit(d.astype(np.float32), -m.astype(np.float32), d, m)
        least, most = scheme.multiples
        # Rounding to the nearest multiple adds a twelfth of a step's square, and a step is what is
        # ``most`` times in the largest minimum. Codes make up for some of it; half is charged.
        penalty = 0.5 / (12 * most * most)
        fit_ranges(self.isa, *arrays, 0.0, penalty, *search)
        codes, sums = self._floats(2), self._floats(5)
        d = self._first_steps(scales, costs[0], least, most)
        dmin = self._first_steps(minima, costs[1], least, most)
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

    def _first_steps(
        self, free: Floats, costs: Floats, least: int, most: int
    ) -> npt.NDArray[np.float16]:
        """The step of each block, of which whole multiples are near to its groups' free scales."""
        groups = self.scheme.groups
        n_blocks = self.n // groups
        values = np.zeros((2, groups, -(-n_blocks // WIDTH) * WIDTH), np.float32)
        for given, to in zip((free, costs), values, strict=True):
            to[:, :n_blocks] = given[: self.n].reshape(-1, groups).T
        steps = np.empty(values.shape[-1], np.float32)
        arrays = values.ctypes.data, values[1].ctypes.data, groups, steps.size
        bounds = float(least), float(most)
        find_steps(self.isa, *arrays, *bounds, _STEP_REACH, _STEP_TRIES, steps.ctypes.data)
        return steps[:n_blocks].astype(np.float16)

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
    # Blocks without any minimum, or without any scale, have one of the two to fit.
    alone_d, alone_dmin = (mm == 0) & (dd > 0), (dd == 0) & (mm > 0)
    return (
        np.where(solvable, better_d, np.where(alone_d, dx / dd, d)).astype(np.float16),
        np.where(solvable, better_dmin, np.where(alone_dmin, -mx / mm, dmin)).astype(np.float16),
    )
