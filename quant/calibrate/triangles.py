"""Cholesky's factor and a triangle's inverse, in place: a matrix of 5120 columns takes 210 MB.

``np.linalg`` makes copies, of which three would be in memory at once, and of an inverse it computes
both halves.
"""

import functools

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.calibrate.workers import Workers

Doubles = npt.NDArray[np.float64]

# Columns that are worked on at a time.
_BLOCK = 256


def factorize(a: Doubles, workers: Workers) -> None:
    """Makes the lower triangle of a symmetric, positive matrix L, with L L^T = a.

    ``a``: float64 [n][n]; of it, only the lower triangle is read and written. Raises LinAlgError
    where it isn't positive.
    """

    def reduce(rest: slice, done: slice) -> None:
        a[rest.start :, rest] -= a[rest.start :, done] @ a[rest, done].T

    blocks = _blocks(len(a))
    for i, block in enumerate(blocks):
        below = slice(block.stop, None)
        corner = np.linalg.cholesky(a[block, block])
        a[block, block] = corner
        a[below, block] = a[below, block] @ np.linalg.inv(corner).T
        workers.do(functools.partial(reduce, rest, block) for rest in blocks[i + 1 :])


def invert(lower: Doubles, workers: Workers) -> None:
    """Makes a lower triangle its inverse; what is above the diagonal isn't read."""

    def finish(columns: slice, rows: slice, corner: Doubles) -> None:
        # Of the columns' triangle, what is above their first row is zero.
        inner = slice(columns.start, rows.start)
        product = lower[rows, inner] @ lower[inner, columns]
        results[columns.start] = -corner @ product

    blocks = _blocks(len(lower))
    for i, rows in enumerate(blocks):
        corner = np.tril(np.linalg.inv(np.tril(lower[rows, rows])))
        results: dict[int, Doubles] = {}
        workers.do(functools.partial(finish, columns, rows, corner) for columns in blocks[:i])
        for columns in blocks[:i]:
            lower[rows, columns] = results[columns.start]
        lower[rows, rows] = corner


def _blocks(n: int) -> list[slice]:
    return [slice(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)]
