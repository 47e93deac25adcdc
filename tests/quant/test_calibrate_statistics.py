"""What rounding knows of a product's inputs, against linear algebra in float64."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.errors import UnsupportedError
from edgeqwen.quant.calibrate import statistics
from edgeqwen.quant.calibrate.statistics import Part, parts
from edgeqwen.quant.calibrate.workers import Workers

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def inputs(n_tokens: int, columns: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Returns correlated inputs of the source, and those of a network that has drifted away."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((columns // 2, columns))
    source = rng.standard_normal((n_tokens, columns // 2)) @ mixing
    source += rng.standard_normal(source.shape) * 0.5
    drifted = 0.95 * source + rng.standard_normal(source.shape) * 0.2
    return source.astype(np.float32), drifted.astype(np.float32)


def collected(source: Floats, quantized: Floats, n_threads: int = 2) -> list[Part]:
    def batches(columns: slice) -> Iterator[tuple[Floats, Floats]]:
        for first in range(0, len(source), 100):
            tokens = slice(first, first + 100)
            yield source[tokens, columns], quantized[tokens, columns]

    with Workers(n_threads) as workers:
        return list(parts(source.shape[1], batches, workers))


def damped(quantized: Floats) -> Doubles:
    x = quantized.astype(np.float64)
    hessian = x.T @ x
    diagonal = np.diag(hessian)
    return hessian + np.diag(0.1 * diagonal + 1e-6 * diagonal.mean())


def check(part: Part, source: Floats, quantized: Floats) -> None:
    columns = slice(part.first, part.stop)
    source, quantized = source[:, columns], quantized[:, columns]
    inverse = np.linalg.inv(damped(quantized))
    factor = part.factor.astype(np.float64)
    scale = np.abs(inverse).max()
    np.testing.assert_allclose(np.triu(factor).T @ np.triu(factor), inverse, atol=1e-5 * scale)
    assert (np.diag(factor) > 0).all()
    # U is that of numpy's own Cholesky.
    upper = np.linalg.cholesky(inverse).T
    np.testing.assert_allclose(factor, upper, atol=1e-4 * np.abs(upper).max())
    x = quantized.astype(np.float64)
    drift = (source - x).T @ x @ inverse
    np.testing.assert_allclose(part.drift, drift, atol=1e-4 * np.abs(drift).max())


@pytest.mark.parametrize("columns", [32, 96, 320, 1120])
def test_factor_and_drift(columns: int) -> None:
    source, quantized = inputs(columns + 400, columns)
    (part,) = collected(source, quantized)
    assert (part.first, part.stop) == (0, columns)
    assert part.factor.dtype == part.drift.dtype == np.float32
    check(part, source, quantized)


def test_drifted_targets_give_the_source_s_outputs() -> None:
    """W + W @ drift is the ridge regression of the source's outputs on the drifted inputs."""
    source, quantized = inputs(2000, 64)
    (part,) = collected(source, quantized)
    weights = np.random.default_rng(1).standard_normal((8, 64))
    wanted = source.astype(np.float64) @ weights.T
    before = np.square(quantized @ weights.T - wanted).sum()
    after = np.square(quantized @ (weights + weights @ part.drift).T - wanted).sum()
    best = np.linalg.lstsq(quantized.astype(np.float64), wanted, rcond=None)[0]
    least = np.square(quantized @ best - wanted).sum()
    assert after < before - 0.5 * (before - least)


def test_the_same_on_any_number_of_threads() -> None:
    source, quantized = inputs(900, 1120)
    (one,), (three,) = (collected(source, quantized, n) for n in (1, 3))
    np.testing.assert_array_equal(one.factor, three.factor)
    np.testing.assert_array_equal(one.drift, three.drift)


def test_no_drift() -> None:
    source, _ = inputs(300, 64)
    (part,) = collected(source, source)
    assert not part.drift.any()


def test_long_rows_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST_COLUMNS", 512)
    source, quantized = inputs(1500, 1120)
    found = collected(source, quantized)
    # Of about the same size, but whole superblocks.
    assert [(part.first, part.stop) for part in found] == [(0, 512), (512, 1024), (1024, 1120)]
    for part in found:
        check(part, source, quantized)


def test_columns_that_never_were_active() -> None:
    source, quantized = inputs(500, 96)
    dead = np.s_[40:72]
    source[:, dead], quantized[:, dead] = 0, 0
    (part,) = collected(source, quantized)
    assert np.isfinite(part.factor).all()
    assert not part.drift[:, dead].any()
    assert not np.triu(part.factor, 1)[dead].any()
    check(part, source, quantized)


def test_nothing_was_active() -> None:
    zeros = np.zeros((10, 64), np.float32)
    (part,) = collected(zeros, zeros)
    np.testing.assert_array_equal(part.factor, np.eye(64))
    assert not part.drift.any()


def test_fewer_tokens_than_columns() -> None:
    source, quantized = inputs(10, 128)
    (part,) = collected(source, quantized)
    check(part, source, quantized)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_activations_that_are_too_large(value: float) -> None:
    source, quantized = inputs(50, 32)
    quantized[7, 3] = value
    with np.errstate(all="ignore"), pytest.raises(UnsupportedError) as error:
        collected(source, quantized)
    assert str(error.value) == (
        "the activations of this text are too large for calibration, which computes in float32; "
        "convert without it"
    )
