"""Searched scales: about as good as can be, for any weights; the same however rows are split."""

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.encode import encode, fit, fitting, importance_of_errors, round_codes
from edgeqwen.quant.encode.schemes import SCHEMES, Scheme
from tests.oracles.encoders import decode
from tests.oracles.least_errors import least_error
from tests.quant.weight_samples import EXACT, KINDS, importance, sample

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

CASES = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.type.name)
COLUMNS = 768

# How much larger errors are than with scales that may be any numbers, and don't have to be stored
# in a few bits. Plain Q4_0 isn't searched for: it is what everybody's Q4_0 is.
ABOVE_LEAST = {
    "Q4_0": 1.06, "Q5_0": 1.06, "Q4_1": 1.04, "Q5_1": 1.06, "IQ4_NL": 1.04, "IQ4_XS": 1.06,
    "Q2_K": 1.15, "Q3_K": 1.1, "Q4_K": 1.08, "Q5_K": 1.2, "Q6_K": 1.25,
}  # fmt: skip
# The same where few multiples of d serve all groups, or all weights of a group are at two places.
OF_KINDS_ABOVE_LEAST = {
    ("Q2_K", "t2.2"): 2.0, ("Q2_K", "outliers"): 2.2, ("Q2_K", "bimodal"): 1.4,
    ("Q3_K", "outliers"): 1.14, ("IQ4_NL", "bimodal"): 1.08, ("IQ4_XS", "bimodal"): 1.11,
}  # fmt: skip
# The least mean squared error of a fixed uniform quantizer of so many levels for weights of
# variance 1, normally distributed (Max, "Quantizing for minimum distortion", 1960, table II).
OF_FIXED_LEVELS = {4: 0.1188, 8: 0.03744, 16: 0.01154, 32: 0.003495, 64: 0.001041}


def encoded(type: GgmlType, x: Floats, w: Floats | None = None) -> Bytes | None:
    """Encodes rows between canaries; None where they can't be said in the type."""
    n_bytes = type.n_bytes((x.size,))
    room = np.full(n_bytes + 128, 0xA5, np.uint8)
    given = x.copy()
    sound = encode(type, x, room[64:-64], w)
    assert (room[:64] == 0xA5).all()
    assert (room[-64:] == 0xA5).all()
    np.testing.assert_array_equal(given, x)
    return room[64:-64].reshape(len(x), -1) if sound else None


def decoded(type: GgmlType, blocks: Bytes | None) -> Floats:
    assert blocks is not None
    found = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(type)))
    return np.asarray(found, np.float32)


def weighed(found: Floats, x: Floats, w: Floats | None) -> float:
    errors = (found.astype(np.float64) - x) ** 2
    return float((errors if w is None else errors * w).sum())


@CASES
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in EXACT])
def test_errors_are_near_the_least(scheme: Scheme, kind: str, weighted: bool) -> None:
    x = sample(kind, 8, COLUMNS)
    w = importance_of_errors(importance(COLUMNS)) if weighted else None
    error = weighed(decoded(scheme.type, encoded(scheme.type, x, w)), x, w)
    groups = x.reshape(-1, scheme.size)
    weights = np.broadcast_to(np.float32(1) if w is None else w, x.shape).reshape(groups.shape)
    least = least_error(scheme, groups, weights).sum()
    name = scheme.type.name
    limit = OF_KINDS_ABOVE_LEAST.get((name, kind), ABOVE_LEAST[name])
    if scheme.type is GgmlType.Q4_0 and not weighted:
        limit = 1.75 if kind == "bimodal" else 1.25
    assert 0.99 * least < error < limit * least


@CASES
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", EXACT)
def test_weights_that_codes_can_say_exactly(scheme: Scheme, kind: str, weighted: bool) -> None:
    """Of many fits without an error, groups get such as the steps of a superblock can serve."""
    if kind == "ternary" and (scheme.codebook or (scheme.type is GgmlType.Q4_0 and not weighted)):
        pytest.skip("no scale has such levels")
    x, w = sample(kind, 24, COLUMNS), importance(COLUMNS) if weighted else None
    found = decoded(scheme.type, encoded(scheme.type, x, w))
    # Superblocks of such small weights have denormal float16 steps.
    assert weighed(found, x, w) < 1e-5 * weighed(np.zeros_like(x), x, w)


@pytest.mark.parametrize("type", [GgmlType.Q2_K, GgmlType.Q4_K, GgmlType.Q5_K])
def test_minima_that_are_whole_multiples(type: GgmlType) -> None:
    """The largest needn't be the largest multiple: one less, here, is what suits all others."""
    scheme = SCHEMES[type]
    assert scheme.multiples is not None
    most = scheme.multiples[1] - 1
    multiples = np.random.default_rng(0).integers(1, most, (24, scheme.groups))
    multiples[:, 3] = most
    x = np.repeat(multiples * np.float32(-0.01), scheme.size, axis=1).astype(np.float32)
    found = decoded(type, encoded(type, x))
    assert weighed(found, x, None) < 1e-6 * weighed(np.zeros_like(x), x, None)


@pytest.mark.parametrize("type", [GgmlType.Q4_1, GgmlType.Q5_1], ids=lambda type: type.name)
@pytest.mark.parametrize("start", [1, -1, 4, -4])
def test_levels_far_from_0(type: GgmlType, start: float) -> None:
    """Groups that differ little in what they have in common are fitted as well as any."""
    step = 2.0**-8 if type is GgmlType.Q4_1 else 2.0**-9
    levels = np.arange(32) // (2 if type is GgmlType.Q4_1 else 1) * step
    x = np.tile(start + levels, (1, COLUMNS // 32)).astype(np.float32)
    np.testing.assert_array_equal(decoded(type, encoded(type, x)), x)


@pytest.mark.parametrize("type", [GgmlType.Q4_1, GgmlType.Q5_1], ids=lambda type: type.name)
def test_where_no_scale_is_small_enough_the_mean_is_kept(type: GgmlType) -> None:
    x = sample("normal", 4, COLUMNS) * np.float32(5e-6)
    assert weighed(decoded(type, encoded(type, x)), x, None) < 1.01 * float((x * x).sum())


@pytest.mark.parametrize(
    ("setting", "less", "types"),
    [
        ("_POLISH", 0, (GgmlType.Q4_0, GgmlType.Q5_0, GgmlType.Q4_1, GgmlType.Q5_1)),
        ("_ROUNDS", 1, (GgmlType.Q2_K, GgmlType.Q4_K, GgmlType.Q5_K)),
        ("_STEP_REACH", 0.0, (GgmlType.Q5_K, GgmlType.Q6_K, GgmlType.IQ4_XS)),
    ],
)
def test_every_part_of_the_search_pays(
    setting: str, less: float, types: tuple[GgmlType, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = sample("normal", 32, COLUMNS), importance(COLUMNS)

    def errors() -> list[float]:
        return [weighed(decoded(type, encoded(type, x, w)), x, w) for type in types]

    with_it = errors()
    monkeypatch.setattr(fitting, setting, less)
    for type, one, other in zip(types, with_it, errors(), strict=True):
        assert other > 1.002 * one, type.name


@CASES
def test_errors_are_below_those_of_fixed_levels(scheme: Scheme) -> None:
    x = sample("normal", 32, COLUMNS)
    error = weighed(decoded(scheme.type, encoded(scheme.type, x)), x, None)
    n_levels = len(scheme.codebook) or scheme.highest - scheme.lowest + 1
    assert error < OF_FIXED_LEVELS[n_levels] * float((x.astype(np.float64) ** 2).sum())


@CASES
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_mean_what_the_fit_and_the_codes_say(scheme: Scheme, kind: str) -> None:
    x, w = sample(kind, 5, COLUMNS), importance(COLUMNS)
    blocks = encoded(scheme.type, x, w)
    weights = np.resize(importance_of_errors(w), x.size)
    found, codes = fit(scheme, x.reshape(-1), weights), np.empty(x.size, np.uint8)
    assert found is not None
    round_codes(scheme, found, x.reshape(-1), codes)
    meant = decode(scheme, found, codes).reshape(x.shape)
    np.testing.assert_array_equal(decoded(scheme.type, blocks), meant)


@CASES
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_rows_may_be_split_anywhere(scheme: Scheme, weighted: bool) -> None:
    x = sample("t4", 13, COLUMNS)
    w = importance(COLUMNS) if weighted else None
    whole = encoded(scheme.type, x, w)
    assert whole is not None
    for cuts in ([1], [4, 5, 11], range(1, 13)):
        parts = [encoded(scheme.type, part, w) for part in np.split(x, cuts)]
        for one, other in zip(parts, np.split(whole, cuts), strict=True):
            assert one is not None
            np.testing.assert_array_equal(one, other)


@CASES
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1.0, 0.37, -1e-3, 2e4, -2e4])
def test_constants(scheme: Scheme, weighted: bool, value: float) -> None:
    """All weights the same: near some level times some scale that can be stored."""
    x = np.full((2, COLUMNS), value, np.float32)
    found = decoded(scheme.type, encoded(scheme.type, x, importance(COLUMNS) if weighted else None))
    # A superblock's d is a denormal float16 where it is a small part of small weights.
    np.testing.assert_allclose(found, x, rtol=0.06 if abs(value) < 0.01 else 0.02)


@CASES
def test_one_constant_group_among_others(scheme: Scheme) -> None:
    x = sample("normal", 2, COLUMNS)
    for value, columns in ((0.03, slice(64, 96)), (-0.03, slice(128, 160))):
        x[:, columns] = value
    found = decoded(scheme.type, encoded(scheme.type, x))
    for columns in (slice(64, 96), slice(128, 160)):
        # The scale is one of a few, in superblocks.
        limit = 0.15 if scheme.type is GgmlType.Q2_K else 0.05
        np.testing.assert_allclose(found[:, columns], x[:, columns], rtol=limit)


@CASES
@pytest.mark.parametrize("sign", [1, -1])
def test_weights_of_one_sign(scheme: Scheme, sign: int) -> None:
    x = sign * np.abs(sample("normal", 4, COLUMNS)) + np.float32(sign * 0.002)
    found = decoded(scheme.type, encoded(scheme.type, x))
    assert weighed(found, x, None) < 0.06 * float((x * x).sum())
    assert (found * sign > -0.005).all()


@CASES
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("huge", [3e4, -3e4])
def test_one_huge_weight(scheme: Scheme, weighted: bool, huge: float) -> None:
    x = sample("normal", 2, COLUMNS)
    x[0, 300] = huge
    w = importance(COLUMNS) if weighted else None
    found = decoded(scheme.type, encoded(scheme.type, x, w))
    assert found[0, 300] == pytest.approx(huge, rel=0.02)
    assert np.isfinite(found).all()
    alone = decoded(scheme.type, encoded(scheme.type, x[1:], w))
    np.testing.assert_array_equal(found[1:], alone)


@CASES
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("size", [1e-45, 1e-39, 1e-20, 1e-9, 3e-7])
def test_weights_next_to_nothing(scheme: Scheme, weighted: bool, size: float) -> None:
    x = (sample("normal", 2, COLUMNS) * (50 * size)).astype(np.float32)
    found = decoded(scheme.type, encoded(scheme.type, x, importance(COLUMNS) if weighted else None))
    # What is smaller than the smallest scale may become 0, and a minimum the only level.
    assert np.abs(found - x).max() <= max(1.5 * np.abs(x).max(), 6e-8)


@CASES
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.3e38, -3.3e38, 1e12, 1e9])
def test_what_can_not_be_said_is_noticed(scheme: Scheme, weighted: bool, value: float) -> None:
    w = importance(COLUMNS) if weighted else None
    for place in (0, 31, 32, COLUMNS - 1, COLUMNS, 2 * COLUMNS - 1):
        x = sample("normal", 2, COLUMNS)
        x.reshape(-1)[place] = value
        assert encoded(scheme.type, x, w) is None
    x = np.full((2, COLUMNS), value, np.float32)
    assert encoded(scheme.type, x, w) is None
    # Of both signs, so that their mean is 0.
    x[:, ::2] *= -1
    assert encoded(scheme.type, x, w) is None


@CASES
def test_weights_a_quarter_as_large_as_any_that_fit(scheme: Scheme) -> None:
    # The minimum is what bounds weights; else the largest scale, of which half is a code's.
    most = 32000.0 if scheme.has_minima else 16000.0 * scheme.highest
    if scheme.multiples is not None:
        most *= scheme.multiples[1]
    x = np.random.default_rng(0).uniform(-1, 1, (2, COLUMNS)).astype(np.float32) * np.float32(most)
    found = decoded(scheme.type, encoded(scheme.type, x))
    assert weighed(found, x, None) < 0.1 * float((x.astype(np.float64) ** 2).sum())


@CASES
@pytest.mark.parametrize(
    ("what", "value"),
    [("columns", 0), ("blocks", 0), ("all", 0), ("columns", 1e-42), ("all", 1e-42), ("one", 1e-38),
     ("one", 3e38)],
)  # fmt: skip
def test_uneven_importance(scheme: Scheme, what: str, value: float) -> None:
    """Whatever matters little is still encoded soundly: in another text it may matter."""
    x, w = sample("normal", 4, COLUMNS), importance(COLUMNS)
    if what == "columns":
        w[::3] = value
    elif what == "blocks":
        w[32:96], w[256:512] = value, value
    elif what == "all":
        w[:] = value
    else:
        w[:] = 0
        w[100] = value
    found = decoded(scheme.type, encoded(scheme.type, x, w))
    plain = decoded(scheme.type, encoded(scheme.type, x))
    assert weighed(found, x, None) < 0.2 * float((x * x).sum())
    if what == "blocks":
        before = weighed(plain[:, 256:512], x[:, 256:512], None)
        assert weighed(found[:, 256:512], x[:, 256:512], None) < 1.02 * before
    elif what == "one":
        before = weighed(plain[:, 100], x[:, 100], None)
        assert weighed(found[:, 100], x[:, 100], None) < 0.6 * before
    elif what == "all" and scheme.type is not GgmlType.Q4_0:
        np.testing.assert_array_equal(found, plain)


@CASES
def test_a_column_that_outweighs_all_others(scheme: Scheme) -> None:
    x, w = sample("normal", 8, COLUMNS), np.ones(COLUMNS, np.float32)
    w[300] = 1e8
    found = decoded(scheme.type, encoded(scheme.type, x, w))
    plain = decoded(scheme.type, encoded(scheme.type, x))
    assert weighed(found[:, 300], x[:, 300], None) < 0.6 * weighed(plain[:, 300], x[:, 300], None)
    others = np.delete(np.arange(COLUMNS), np.s_[256:512])
    limit = 1.02 * weighed(plain[:, others], x[:, others], None)
    assert weighed(found[:, others], x[:, others], None) < limit
    assert weighed(found, x, None) < 0.15 * float((x * x).sum())
