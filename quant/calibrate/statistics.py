"""What rounding must know of a product's inputs: how they vary together, and how far they drifted.

For inputs X of the quantized network and F of the source, float32 [n_tokens][columns], both at the
same places of a text: the Hessian H = X^T X, and the drift C = (F - X)^T X.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import UnsupportedError
from edgeqwen.quant.calibrate.triangles import factorize, invert
from edgeqwen.quant.calibrate.workers import Workers

Floats = npt.NDArray[np.float32]
# Gives, for some columns, what all tokens of a text have there, batch by batch: float32
# [n_tokens][columns] as the source has it, and as the quantized network has it.
Inputs = Callable[[slice], Iterable[tuple[Floats, Floats]]]

# Of more columns than this, parts are looked at by themselves: an upper bound on memory, 400 MB,
# for the longest rows. It is a multiple of a superblock, and takes the 0.5B's rows whole.
MOST_COLUMNS = 4864
_SUPERBLOCK = 256
# What is added to the diagonal, by its own size: a text is only a sample.
_DAMPING = 0.1
# Columns whose sums, or rows whose drift, a thread computes at a time.
_TOGETHER = 512


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


def parts(columns: int, inputs: Inputs, workers: Workers) -> Iterator[Part]:
    """Yields the parts of a matrix of so many columns, one after the other.

    A part takes 8 bytes for each pair of its columns, and 16 while it is computed.

    Raises UnsupportedError where the inputs, or their squares, are too large for float32.
    """
    n_parts = -(-columns // MOST_COLUMNS)
    size = -(-columns // n_parts // _SUPERBLOCK) * _SUPERBLOCK
    for first in range(0, columns, size):
        part = slice(first, min(first + size, columns))
        yield _part(part, inputs(part), workers)


def _part(columns: slice, batches: Iterable[tuple[Floats, Floats]], workers: Workers) -> Part:
    hessian, drift = _sums(columns.stop - columns.start, batches, workers)
    if not (np.isfinite(hessian).all() and np.isfinite(drift).all()):
        raise UnsupportedError(
            "the activations of this text are too large for calibration, which computes in "
            "float32; convert without it"
        )
    damped = _damped_and_turned(hessian)
    del hessian
    # With H = R R^T, R upper triangular, U is R^-1; turned by 180 degrees, R is Cholesky's.
    factorize(damped, workers)
    invert(damped, workers)
    factor = damped[::-1, ::-1].astype(np.float32, order="C")
    del damped
    for row in range(1, len(factor)):
        factor[row, :row] = 0
    _solve(drift, factor, workers)
    return Part(columns.start, columns.stop, factor, drift)


def _sums(
    n: int, batches: Iterable[tuple[Floats, Floats]], workers: Workers
) -> tuple[Floats, Floats]:
    """Returns H and C, float32 [n][n]."""
    hessian, drift = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)

    def add(first: int, x: Floats, difference: Floats) -> None:
        some = slice(first, first + _TOGETHER)
        # What is below the diagonal is what is above it.
        hessian[some, first:] += x[:, some].T @ x[:, first:]
        drift[some] += difference[:, some].T @ x

    for source, quantized in batches:
        x = np.ascontiguousarray(quantized)
        difference = source - x
        starts = range(0, n, _TOGETHER)
        workers.do(functools.partial(add, first, x, difference) for first in starts)
    for first in range(0, n, _TOGETHER):
        stop = first + _TOGETHER
        hessian[stop:, first:stop] = hessian[first:stop, stop:].T
    return hessian, drift


def _damped_and_turned(hessian: Floats) -> npt.NDArray[np.float64]:
    """Returns H + damping in float64, turned by 180 degrees."""
    turned = hessian[::-1, ::-1].astype(np.float64, order="C")
    diagonal = np.diag(turned).copy()
    mean = diagonal.mean()
    # Columns that never were active get as much as makes the matrix solvable.
    turned[np.diag_indices_from(turned)] += _DAMPING * diagonal + (1e-6 * mean if mean > 0 else 1.0)
    return turned


def _solve(drift: Floats, factor: Floats, workers: Workers) -> None:
    """Makes C, in place, C (H + damping)^-1."""

    def multiply(rows: slice) -> None:
        drift[rows] = (drift[rows] @ factor.T) @ factor

    starts = range(0, len(drift), _TOGETHER)
    workers.do(functools.partial(multiply, slice(first, first + _TOGETHER)) for first in starts)
