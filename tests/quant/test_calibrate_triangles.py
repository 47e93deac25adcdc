"""Factors and inverses in place, against numpy's."""

import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.quant.calibrate.triangles import factorize, invert
from edgeqwen.quant.calibrate.workers import Workers

Doubles = npt.NDArray[np.float64]

SIZES = pytest.mark.parametrize("n", [1, 32, 256, 257, 700])


def positive(n: int) -> Doubles:
    x = np.random.default_rng(n).standard_normal((2 * n, n))
    return x.T @ x


@SIZES
def test_factor(n: int) -> None:
    a = positive(n)
    found = a.copy()
    # Only the lower triangle is read.
    found[np.triu_indices(n, 1)] = np.nan
    with Workers(2) as workers:
        factorize(found, workers)
    np.testing.assert_allclose(np.tril(found), np.linalg.cholesky(a), atol=1e-9 * np.sqrt(n))


@SIZES
def test_inverse(n: int) -> None:
    lower = np.linalg.cholesky(positive(n))
    found = lower.copy()
    found[np.triu_indices(n, 1)] = np.nan
    with Workers(2) as workers:
        invert(found, workers)
    found = np.tril(found)
    np.testing.assert_allclose(found @ lower, np.eye(n), atol=1e-9)


def test_a_matrix_that_is_not_positive() -> None:
    a = positive(300)
    a[280, 280] = -1
    with Workers(1) as workers, pytest.raises(np.linalg.LinAlgError):
        factorize(a, workers)
