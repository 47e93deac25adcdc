"""What rounding must know of a product's inputs: how they vary together, and how far they drifted.

For inputs X of the quantized network and F of the source, float32 [n_tokens][columns], both at the
same places of a text: the Hessian H = X^T X, and the drift C = (F - X)^T X.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import UnsupportedError

Floats = npt.NDArray[np.float32]

# Of more columns than this, parts are looked at by themselves: an upper bound on memory, 650 MB,
# for the longest rows. It is a multiple of a superblock, and takes the 0.5B's rows whole.
MOST_COLUMNS = 5120
_SUPERBLOCK = 256
# What is added to the diagonal, by its own size: a text is only a sample.
_DAMPING = 0.1


@dataclass(frozen=True, slots=True)
class Part:
    """Columns [first, stop) of a matrix, and what their inputs tell.

    ``factor``: float32 [n][n], upper triangular, U with U^T U = (H + damping)^-1. Row i says how
    the error of column i is best spread over those behind it. ``drift``: C (H + damping)^-1,
    float32 [n][n]: W + W @ drift is what would give, from the quantized network's inputs, the
    source's outputs.
    """

    first: int
    stop: int
    factor: Floats
    drift: Floats


class Statistics:
    """Sums over tokens of a product's inputs, by parts of its columns."""

    def __init__(self, columns: int) -> None:
        n_parts = -(-columns // MOST_COLUMNS)
        size = -(-columns // n_parts // _SUPERBLOCK) * _SUPERBLOCK
        self._slices = [
            slice(first, min(first + size, columns)) for first in range(0, columns, size)
        ]
        sizes = [part.stop - part.start for part in self._slices]
        self._hessians = [np.zeros((n, n), np.float32) for n in sizes]
        self._drifts = [np.zeros((n, n), np.float32) for n in sizes]  # C^T

    def add(self, source: Floats, quantized: Floats) -> None:
        """Adds tokens: float32 [n][columns] as the source and the quantized network have them."""
        for part, hessian, drift in zip(self._slices, self._hessians, self._drifts, strict=True):
            x = quantized[:, part]
            hessian += x.T @ x
            drift += x.T @ (source[:, part] - x)

    def parts(self) -> Iterator[Part]:
        """Yields the parts; their sums are gone afterwards.

        Raises UnsupportedError where the inputs, or their squares, are too large for float32.
        """
        while self._slices:
            part, hessian, drift = self._slices.pop(0), self._hessians.pop(0), self._drifts.pop(0)
            if not (np.isfinite(hessian).all() and np.isfinite(drift).all()):
                raise UnsupportedError(
                    "the activations of this text are too large for calibration, which computes "
                    "in float32; convert without it"
                )
            factor = _factor(hessian)
            del hessian
            aim = ((drift.T @ factor.T) @ factor).astype(np.float32, copy=False)
            yield Part(part.start, part.stop, factor, aim)


def _factor(hessian: Floats) -> Floats:
    """Returns the upper triangular U with U^T U = (H + damping)^-1."""
    h = hessian.astype(np.float64)
    diagonal = np.diag(h).copy()
    mean = diagonal.mean()
    # Columns that never were active get as much as makes the matrix solvable.
    h[np.diag_indices_from(h)] += _DAMPING * diagonal + (1e-6 * mean if mean > 0 else 1.0)
    # With H = R R^T, R upper triangular, U is R^-1; turned by 180 degrees, that is Cholesky's.
    lower = np.linalg.cholesky(h[::-1, ::-1])
    del h
    return np.ascontiguousarray(np.linalg.inv(lower)[::-1, ::-1]).astype(np.float32)
