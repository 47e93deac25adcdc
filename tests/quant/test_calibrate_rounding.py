"""Rounding with feedback: products with correlated inputs stay nearer than by plain rounding."""

import functools

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.calibrate import rounding
from edgeqwen.quant.calibrate.rounding import round_rows
from edgeqwen.quant.calibrate.statistics import Part, parts
from edgeqwen.quant.calibrate.workers import Workers
from edgeqwen.quant.encode import encode, fit, importance_of_errors
from edgeqwen.quant.encode.schemes import SCHEMES, Scheme
from tests.oracles.encoders import round_with_feedback
from tests.quant.weight_samples import sample

Floats = npt.NDArray[np.float32]

CASES = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.type.name)
COLUMNS = 512


@functools.cache
def correlated(n_tokens: int) -> Floats:
    """Inputs that vary in few directions, some much more than others."""
    rng = np.random.default_rng(0)
    spread = np.exp(rng.standard_normal(COLUMNS // 4))
    x = rng.standard_normal((n_tokens, COLUMNS // 4)) * spread
    x = x @ rng.standard_normal((COLUMNS // 4, COLUMNS))
    x += rng.standard_normal(x.shape) * 0.1 * x.std()
    found: Floats = x.astype(np.float32)
    found.flags.writeable = False
    return found


def parts_of(source: Floats, quantized: Floats) -> list[Part]:
    def batches(columns: slice) -> list[tuple[Floats, Floats]]:
        return [(source[:, columns], quantized[:, columns])]

    with Workers(1) as workers:
        return list(parts(source.shape[1], batches, workers))


def rounded(scheme: Scheme, x: Floats, parts: list[Part]) -> Floats:
    """Rounds rows; what the bytes mean is what was said of them."""
    found = round_rows(scheme, x, parts)
    assert found is not None
    blocks, meant = found
    assert blocks.shape == (len(x), x.shape[1] // scheme.type.block_size, scheme.type.type_size)
    np.testing.assert_array_equal(decoded(scheme.type, blocks.reshape(len(x), -1)), meant)
    return meant


def decoded(type: GgmlType, blocks: npt.NDArray[np.uint8]) -> Floats:
    found = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(type)))
    return np.asarray(found, np.float32)


def plain(type: GgmlType, x: Floats, w: Floats | None = None) -> Floats:
    out = np.empty((len(x), type.n_bytes(x.shape[1:])), np.uint8)
    assert encode(type, x, out, w)
    return decoded(type, out)


def distance(inputs: Floats, x: Floats, y: Floats) -> float:
    return float(np.square(inputs.astype(np.float64) @ (x.astype(np.float64) - y).T).sum())


@CASES
def test_without_correlation_it_is_plain_rounding(scheme: Scheme) -> None:
    x = sample("t4", 11, COLUMNS)
    eye, zeros = np.eye(COLUMNS, dtype=np.float32), np.zeros((COLUMNS, COLUMNS), np.float32)
    found = rounded(scheme, x, [Part(0, COLUMNS, eye, zeros)])
    # As with an importance, for Q4_0 is searched for, too.
    expected = plain(scheme.type, x, np.ones(COLUMNS, np.float32))
    differs = found != expected
    # Rounding of halves is another.
    assert differs.mean() < 1e-3
    np.testing.assert_allclose(np.square(found - x).sum(), np.square(expected - x).sum(), rtol=1e-4)


@CASES
def test_products_stay_nearer(scheme: Scheme) -> None:
    x, inputs = sample("normal", 24, COLUMNS), correlated(1500)
    found = rounded(scheme, x, parts_of(inputs, inputs))
    weight = np.square(inputs).mean(axis=0)
    before = min(distance(inputs, x, plain(scheme.type, x, w)) for w in (None, weight))
    assert distance(inputs, x, found) < 0.5 * before


@CASES
def test_drift_is_made_up_for(scheme: Scheme) -> None:
    """Aims at what the source gives for its own inputs, not at what its weights give for others."""
    x, source = sample("normal", 24, COLUMNS), correlated(1500)
    quantized = (0.9 * source).astype(np.float32)

    def missed(found: Floats) -> float:
        return float(np.square(quantized @ found.T - source @ x.T).sum())

    aimed = rounded(scheme, x, parts_of(source, quantized))
    not_aimed = rounded(scheme, x, parts_of(quantized, quantized))
    assert missed(aimed) < 0.6 * missed(not_aimed)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q3_K", "Q4_K", "IQ4_XS"])
def test_against_its_twin(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slab by slab, with products for what is moved on, gives what column by column gives."""
    scheme = SCHEMES[GgmlType[name]]
    block = scheme.type.block_size
    slab = max(64, block)
    monkeypatch.setattr(rounding, "_SLAB", slab)
    x, inputs = sample("t4", 5, COLUMNS), correlated(1500)
    (part,) = parts_of(inputs, (inputs * np.float32(0.97)).astype(np.float32))
    found = rounded(scheme, x, [part])
    target = x + x @ part.drift
    cost = 1 / np.diag(part.factor) ** 2
    expected = []
    for first in range(0, COLUMNS, block):
        columns = slice(first, first + block)
        importance = np.tile(importance_of_errors(cost[columns]), len(x))
        chosen = fit(scheme, np.ascontiguousarray(target[:, columns]).reshape(-1), importance)
        assert chosen is not None
        stop = first + block
        _, meant, _ = round_with_feedback(scheme, target, part.factor, chosen, first, stop)
        expected.append(meant)
    twin = np.concatenate(expected, axis=1)
    # Sums in another order: now and then a code is another, and all behind it moves. So what comes
    # right behind a slab, moved by a product, is what can be compared.
    stop = slab + block
    assert (np.abs(found[:, :stop] - twin[:, :stop]) < 1e-6).mean() > 0.98
    distances = [distance(inputs, x, y) for y in (found, twin)]
    assert distances[0] == pytest.approx(distances[1], rel=0.25)


def test_parts_are_rounded_by_themselves() -> None:
    scheme, x, inputs = SCHEMES[GgmlType.Q4_K], sample("normal", 8, COLUMNS), correlated(1500)
    both = []
    for columns in (slice(0, 256), slice(256, 512)):
        (part,) = parts_of(inputs[:, columns], inputs[:, columns])
        both.append(Part(columns.start, columns.stop, part.factor, part.drift))
    found = rounded(scheme, x, both)
    alone = rounded(scheme, np.ascontiguousarray(x[:, 256:]), both[1:])
    np.testing.assert_array_equal(found[:, 256:], alone)
    assert distance(inputs[:, 256:], x[:, 256:], alone) < 0.7 * distance(
        inputs[:, 256:], x[:, 256:], plain(scheme.type, x)[:, 256:]
    )


@CASES
def test_dead_columns(scheme: Scheme) -> None:
    """What never was active is rounded soundly, too: in another text it may be."""
    x, inputs = sample("normal", 8, COLUMNS), correlated(1500)
    inputs = inputs.copy()
    inputs[:, 200:480] = 0
    found = rounded(scheme, x, parts_of(inputs, inputs))
    errors = np.square(found - x).mean(axis=0)
    assert errors[256:448].mean() < 1.1 * np.square(plain(scheme.type, x) - x).mean()
    assert errors[200:480].mean() < 0.2 * np.square(x).mean()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_weights_that_can_not_be_said(value: float) -> None:
    x, inputs = sample("normal", 8, COLUMNS), correlated(1500)
    x[5, 500] = value
    with np.errstate(all="ignore"):
        assert round_rows(SCHEMES[GgmlType.Q4_K], x, parts_of(inputs, inputs)) is None
