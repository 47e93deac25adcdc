"""The encoders' kernels find what their twins find, bit for bit, on every instruction set."""

import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.quant.encode import encode, feedback, fitting, importance_of_errors
from edgeqwen.quant.encode.codes import look_up_codes, round_to_codes
from edgeqwen.quant.encode.groups import centre, interleave
from edgeqwen.quant.encode.layouts import Fit
from edgeqwen.quant.encode.levels import Levels
from edgeqwen.quant.encode.ranges import fit_ranges, settle_ranges
from edgeqwen.quant.encode.scales import fit_scales, settle_scales
from edgeqwen.quant.encode.schemes import SCHEMES, Scheme
from edgeqwen.quant.encode.steps import find_steps
from edgeqwen.simd.isa import Isa
from tests.isas import NATIVE, TEST_ISAS, address, each_isa
from tests.oracles import encoders as oracle
from tests.quant.weight_samples import importance, sample

Floats = npt.NDArray[np.float32]

CASES = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.type.name)
WITH_MINIMA = [s for s in SCHEMES.values() if s.has_minima]
WITHOUT_MINIMA = [s for s in SCHEMES.values() if not s.has_minima]
N_GROUPS = 48
REACH, TRIES, POLISH, PENALTY = 0.9, 5, 2, 1e-3


def groups_of(scheme: Scheme) -> tuple[Floats, Floats]:
    """Returns groups of all kinds, [groups][size], and their importances."""
    size = scheme.size
    x = np.concatenate([sample(kind, 11, size) for kind in ("normal", "t4", "t2.2")])
    special = np.zeros((N_GROUPS - len(x), size), np.float32)
    special[1], special[2], special[3] = 0.5, -0.5, -0.0
    special[4, 7] = 300
    special[5] = 1e-39
    special[6], special[7] = abs(x[0]), -abs(x[0])
    special[8] = np.arange(size) % 2
    special[9] = 1000 + x[0]
    special[10:] = np.round(sample("normal", len(special) - 10, size) * 200) / 16
    x = np.concatenate([x, special])
    w = importance(x.size).reshape(x.shape)
    w[::3] = 1
    w[1::9, ::2] = 1e-6
    return x, w


def side_by_side(x: Floats) -> Floats:
    return oracle.interleave(x).reshape(-1)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("size", [16, 32])
def test_interleave(n: int, size: int) -> None:
    x = sample("normal", n, size)
    expected = oracle.interleave(x)
    room = np.full(expected.size + 32, 7, np.float32)
    assert interleave(x.reshape(-1), size, room[16:-16])
    np.testing.assert_array_equal(room[16:-16].reshape(expected.shape), expected)
    assert (room[:16] == 7).all()
    assert (room[-16:] == 7).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**40, -3e38])
@pytest.mark.parametrize("place", [0, 31, 32, 639])
def test_interleave_notices_what_is_too_large(value: float, place: int) -> None:
    x = sample("normal", 20, 32).reshape(-1)
    x[place] = value
    assert not interleave(x, 32, np.empty(1024, np.float32))
    x[place] = np.copysign(np.nextafter(np.float32(2.0**40), np.float32(0)), value)
    assert interleave(x, 32, np.empty(1024, np.float32))


@pytest.mark.parametrize("scheme", WITHOUT_MINIMA, ids=lambda scheme: scheme.type.name)
def test_scales(scheme: Scheme) -> None:
    x, w = groups_of(scheme)
    bounds, book = (scheme.lowest, scheme.highest), scheme.codebook
    twin = oracle.Scales(x, w, bounds, book)
    sides, levels = (side_by_side(x), side_by_side(w)), Levels(NATIVE, book)
    arrays = (*map(address, sides), N_GROUPS, scheme.size, *map(float, bounds))
    scales, costs = np.empty((2, N_GROUPS), np.float32)
    fit_scales(levels, *arrays, REACH, TRIES, POLISH, address(scales), address(costs))
    with np.errstate(all="ignore"):
        expected = twin.fit(REACH, TRIES, POLISH)
    np.testing.assert_array_equal([scales, costs], expected)
    multiples = scheme.multiples or (-32, 31)
    steps = np.abs(scales).max() / np.float32(multiples[0]) * np.linspace(0.3, 3, N_GROUPS)
    steps = steps.astype(np.float32)
    steps[5] = 0
    codes, sums = np.empty(N_GROUPS, np.float32), np.empty((2, N_GROUPS), np.float32)
    given = address(scales), address(steps), *map(float, multiples)
    settle_scales(levels, *arrays, *given, address(codes), address(sums))
    with np.errstate(all="ignore"):
        settled = twin.settle(scales, steps, multiples)
    np.testing.assert_array_equal(codes, settled[0])
    np.testing.assert_array_equal(sums, settled[1])


@pytest.mark.parametrize("scheme", WITH_MINIMA, ids=lambda scheme: scheme.type.name)
def test_ranges(scheme: Scheme) -> None:
    x, w = groups_of(scheme)
    twin = oracle.Ranges(x, w, scheme.highest)
    sides = side_by_side(x), side_by_side(w)
    arrays = (*map(address, sides), N_GROUPS, scheme.size, float(scheme.highest))
    floor = -1e30 if scheme.multiples is None else 0.0
    found, costs = np.empty((2, 2, N_GROUPS), np.float32)
    search = floor, PENALTY, REACH, TRIES, POLISH
    fit_ranges(NATIVE, *arrays, *search, *map(address, found), address(costs))
    with np.errstate(all="ignore"):
        expected = twin.fit(*search)
    np.testing.assert_array_equal([*found, costs[0]], expected)
    np.testing.assert_array_equal(costs[1], twin.sw)
    most = (scheme.multiples or (0, 63))[1]
    free = np.abs(found)
    spread = np.linspace(0.3, 3, N_GROUPS, dtype=np.float32)
    steps = (free.max(axis=1, keepdims=True) / np.float32(most) * [spread, spread[::-1]]).astype(
        np.float32
    )
    steps[:, 5] = 0
    codes, sums = np.empty((2, N_GROUPS), np.float32), np.empty((5, N_GROUPS), np.float32)
    given = *map(address, free), address(steps), float(most)
    settle_ranges(NATIVE, *arrays, *given, *map(address, codes), address(sums))
    with np.errstate(all="ignore"):
        a, b, expected_sums = twin.settle((free[0], free[1]), (steps[0], steps[1]), most)
    np.testing.assert_array_equal(codes, np.stack([a, b]))
    np.testing.assert_array_equal(sums, expected_sums)


@pytest.mark.parametrize("size", [16, 32])
def test_centre(size: int) -> None:
    x, w = sample("t4", 40, size) + np.float32(3), importance(40 * size).reshape(40, size)
    sides, centres = (side_by_side(x), side_by_side(w)), np.empty(48, np.float32)
    centre(NATIVE, *map(address, sides), 48, size, address(centres))
    expected, means = oracle.centre(x, w)
    np.testing.assert_array_equal(centres[:40], means)
    np.testing.assert_array_equal(sides[0], side_by_side(expected))
    np.testing.assert_allclose((expected * w).sum(axis=1) / w.sum(axis=1), 0, atol=1e-5)


@pytest.mark.parametrize("multiples", [(-32, 31), (-128, 127), (0, 15), (0, 63)])
def test_find_steps(multiples: tuple[int, int]) -> None:
    free, costs = sample("t4", 48, 8), importance(48 * 8).reshape(48, 8)
    # As many that are all the same, of few values, of one sign, next to nothing, or nothing.
    free[4], free[5], free[6, 1:], free[7] = 0, 0.37, 0, np.arange(8) % 2
    free[8:16], free[16:24] = np.abs(free[8:16]), -np.abs(free[16:24])
    free[24], costs[25], costs[26, ::2] = free[24] * np.float32(1e-36), 0, 0
    if multiples[0] == 0:
        free = np.abs(free)
    laid, steps = [np.ascontiguousarray(a.T) for a in (free, costs)], np.empty(48, np.float32)
    arrays = (*map(address, laid), 8, 48, *map(float, multiples))
    find_steps(NATIVE, *arrays, 4.0, 9, address(steps))
    with np.errstate(all="ignore"):
        expected = oracle.find_steps(free, costs, multiples, 4.0, 9)
    np.testing.assert_array_equal(steps, expected)


def fit_of(scheme: Scheme, x: Floats, w: Floats | None = None) -> Fit:
    flat = None if w is None else w.reshape(-1)
    found = fitting.fit(scheme, x.reshape(-1), flat)
    assert found is not None
    return found


@CASES
def test_codes(scheme: Scheme) -> None:
    block = scheme.type.block_size
    x = np.concatenate([groups_of(scheme)[0].reshape(-1, block), sample("t2.2", 5, block)])
    found = fit_of(scheme, x)
    found.scales[1], found.scales[2] = 0, found.scales[0] * np.float32(0.1)
    room = np.full(x.size + 64, 0xA5, np.uint8)
    codes = room[32:-32]
    fitting.round_codes(scheme, found, x.reshape(-1), codes)
    expected = oracle.round_codes(scheme, found, x)
    np.testing.assert_array_equal(codes.reshape(expected.shape), expected)
    assert (room[:32] == 0xA5).all()
    assert (room[-32:] == 0xA5).all()


def test_codes_at_their_bounds() -> None:
    scales, minima = np.array([1, 0], np.float32), np.zeros(2, np.float32)
    x = np.tile(np.array([-100, -8.4, -7.6, -0.4, 0.4, 0.6, 7.4, 100], np.float32), 8)
    codes = np.empty(x.size, np.uint8)
    round_to_codes(x, 32, -8, 7, scales, minima, codes)
    assert codes[:8].tolist() == [0, 0, 0, 8, 8, 9, 15, 15]
    assert set(codes[32:].tolist()) == {8}
    look_up_codes(x, 32, np.array([-8, 0.5, 50], np.float32), scales, codes)
    assert codes[:8].tolist() == [0, 0, 1, 1, 1, 2, 2, 3]
    assert set(codes[32:].tolist()) == {1}


@CASES
def test_round_with_feedback(scheme: Scheme) -> None:
    n, block, n_rows = 512, scheme.type.block_size, 6
    rng = np.random.default_rng(5)
    factor = np.triu(rng.standard_normal((n, n)) * 0.05 + np.eye(n)).astype(np.float32)
    x = sample("t4", n_rows, n)
    first, last = 256, 256 + block
    found = fit_of(scheme, np.ascontiguousarray(x[:, first:last]))
    found.scales[0] = 0
    if found.minima is not None:
        found.minima[0] = 0.01
    expected_x = x.copy()
    expected = oracle.round_with_feedback(scheme, expected_x, factor, found, first, last)
    scales = found.scales.reshape(n_rows, -1)
    minima = np.zeros_like(scales) if found.minima is None else found.minima.reshape(n_rows, -1)
    book = np.array(scheme.codebook, np.float32)
    codes = np.full((n_rows, n), 0xA5, np.uint8)
    rounded, errors = np.full((2, n_rows, n), 7, np.float32)
    levels = first, last, scheme.size, scheme.lowest, scheme.highest, book
    feedback.round_with_feedback(x, factor, *levels, scales, minima, codes, rounded, errors)
    for out, wanted, before in zip((codes, rounded, errors), expected, (0xA5, 7, 7), strict=True):
        np.testing.assert_array_equal(out[:, first:last], wanted)
        assert (np.delete(out, np.s_[first:last], axis=1) == before).all()
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(
        expected[1].reshape(-1, scheme.size),
        oracle.decode(scheme, found, np.ascontiguousarray(expected[0])),
    )


@each_isa(tuple(isa for isa in TEST_ISAS if isa != NATIVE))
def test_every_instruction_set_writes_the_same_bytes(
    isa: Isa, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.concatenate([sample("t4", 5, 768), sample("normal", 2, 768)])
    x[1, :256], x[2, :40] = 0, 0.25
    w = importance(768)
    w[100:164] = 0

    def blocks(scheme: Scheme) -> npt.NDArray[np.uint8]:
        out = np.empty((len(x), scheme.type.n_bytes((768,))), np.uint8)
        assert encode(scheme.type, x, out, w)
        return out

    expected = [blocks(scheme) for scheme in SCHEMES.values()]
    monkeypatch.setattr(fitting, "current_isa", lambda: isa)
    for scheme, wanted in zip(SCHEMES.values(), expected, strict=True):
        np.testing.assert_array_equal(blocks(scheme), wanted, err_msg=scheme.type.name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.zeros(32), np.ones(32)),
        (np.full(32, 1e-42), np.ones(32)),
        (np.r_[1e8, np.ones(31)], np.r_[1, np.full(15, 1e-6), np.full(16, 1e-8)]),
        (np.r_[3e38, np.zeros(31)], np.r_[1, np.full(15, 1e-6), np.full(16, 1e-12)]),
        (np.r_[1e-38, np.zeros(31)], np.r_[1, np.full(15, 1e-6), np.full(16, 1e-12)]),
        (np.r_[2, 1, np.full(30, 0.5)], np.r_[1, 0.5, np.full(30, 0.25)]),
    ],
)
def test_importance_of_errors(given: Floats, expected: Floats) -> None:
    found = importance_of_errors(given.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3)
