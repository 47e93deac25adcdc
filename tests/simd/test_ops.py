"""Vector operations against numpy, for vectors of every width."""

import math

import numpy as np
import pytest

from edgeqwen.simd.compiler import FASTMATH
from edgeqwen.simd.isa import Isa
from tests.isas import address, each_isa
from tests.oracles.kv_cache import from_bf16
from tests.simd import kernels

N = 64
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-45, -1e-38], "f4")


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """All pairs of special values, and random ones: float32 [n], n a multiple of 16."""
    rng = np.random.default_rng(0)
    x, y = (a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL))
    n = -len(x) % 16 + 64
    random = [(rng.standard_normal(n) * 10.0 ** rng.integers(-5, 6, n)).astype("f4") for _ in "xy"]
    return np.concatenate([x, random[0]]), np.concatenate([y, random[1]])


@each_isa()
def test_arithmetic(isa: Isa) -> None:
    x, y = pairs()
    n = len(x)
    z = np.roll(x, 7)
    out = np.zeros((8, n), np.float32)
    kernels.arithmetic(isa, address(x), address(y), address(z), address(out), n)
    with np.errstate(all="ignore"):
        expected = [x + y, x - y, x * y, x / y]
        rounded_once = (x.astype("f8") * y + z).astype("f4")
        # y where either is NaN.
        larger = np.where(x > y, x, y)
        rounded_twice = x * y + z
    for result, value in zip(out[:4], expected, strict=True):
        np.testing.assert_array_equal(result, value)
    # float64 rounds the sum a second time, which can differ by a unit in the last place.
    np.testing.assert_array_max_ulp(out[4], rounded_once, 1)
    np.testing.assert_array_equal(out[5], larger)
    np.testing.assert_array_equal(out[6].view("u4"), np.abs(x).view("u4"))
    # Kernels let the compiler fuse two operators.
    fused = (out[7] == rounded_once) | np.isnan(rounded_once)
    assert (fused | (out[7] == rounded_twice)).all()


@each_isa()
def test_fma_rounds_once(isa: Isa) -> None:
    x = np.full(16, 1 + 2.0**-12, np.float32)
    z = np.full(16, -(1 + 2.0**-11), np.float32)
    out = np.zeros((8, 16), np.float32)
    kernels.arithmetic(isa, address(x), address(x), address(z), address(out), 16)
    assert (out[4] == 2.0**-24).all()


@each_isa()
def test_integers(isa: Isa) -> None:
    rng = np.random.default_rng(1)
    halves = np.arange(-16, 16, dtype=np.float32) + 0.5
    x = np.concatenate([halves, rng.uniform(-2e9, 2e9, N - 32).astype("f4")])
    a, b = rng.integers(-(2**31), 2**31, (2, N)).astype(np.int32)
    out, as_bytes = np.zeros((4, N), np.int32), np.zeros(N, np.int8)
    kernels.integers(isa, address(x), address(a), address(b), address(out), address(as_bytes), N)
    np.testing.assert_array_equal(out[0], np.rint(x))  # halves go to even
    with np.errstate(over="ignore"):
        for result, expected in zip(out[1:], [a + b, a - b, a * b], strict=True):
            np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(as_bytes, a.view(np.int8)[::4])


@each_isa()
def test_reductions(isa: Isa) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        # Integers sum exactly in any order.
        x = rng.integers(-1000, 1000, isa.lanes).astype(np.float32)
        a = rng.integers(-(2**31), 2**31, isa.lanes).astype(np.int32)
        out = np.zeros(3, np.float32)
        kernels.reductions(isa, address(x), address(a), address(out))
        assert out[0] == x.sum()
        assert out[1] == x.max()
        assert out.view(np.int32)[2] == a.sum(dtype=np.int32)


@each_isa()
def test_a_sum_does_not_lose_a_nan(isa: Isa) -> None:
    for lane in range(isa.lanes):
        x = np.ones(isa.lanes, np.float32)
        x[lane] = np.nan
        out = np.zeros(3, np.float32)
        kernels.reductions(isa, address(x), address(x), address(out))
        assert math.isnan(out[0])


@each_isa()
def test_masking(isa: Isa) -> None:
    n = isa.lanes
    x = np.arange(1, n + 1, dtype=np.float32)
    x[-1] = np.nan  # garbage that a mask must hide
    for count in (-(2**31), -1, 0, 1, n - 1, n, n + 1, 2**31 - 1):
        out = np.zeros(n, np.float32)
        kernels.masked(isa, address(x), count, address(out))
        kept = min(max(count, 0), n)
        np.testing.assert_array_equal(out[:kept], x[:kept])
        assert (out[kept:] == -7.5).all()


@each_isa()
def test_splats(isa: Isa) -> None:
    x = np.array([-3.25, 9.0], np.float32)
    out = np.full((3, isa.lanes), np.nan, np.float32)
    kernels.splats(isa, address(x), address(out))
    assert (out == np.array([[-3.25], [2.5], [0.0]])).all()
    assert kernels.n_lanes(isa) == isa.lanes


@each_isa()
def test_scattering_writes_its_elements_and_no_more(isa: Isa) -> None:
    n = isa.lanes
    x = (np.arange(n) - 1.5).astype(np.float32)
    wide, narrow = np.full((n, 3), 99, np.float32), np.full((n, 5), 99, np.float16)
    brief = np.full((n, 3), 99, np.uint16)
    places = address(wide) + 4, 12, address(narrow) + 2, 10, address(brief) + 2, 6
    kernels.scattered(isa, address(x), *places)
    assert (from_bf16(brief[:, 1]) == x).all()
    assert (np.delete(brief, 1, 1) == 99).all()
    assert (wide[:, 1] == x).all()
    assert (narrow[:, 1] == x).all()
    assert (np.delete(wide, 1, 1) == 99).all()
    assert (np.delete(narrow, 1, 1) == 99).all()


@each_isa()
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_vectors_may_lie_anywhere(isa: Isa, offset: int) -> None:
    memory = np.zeros(4 * isa.lanes + 16, np.uint8)
    values = np.arange(isa.lanes, dtype=np.float32)
    memory[offset : offset + 4 * isa.lanes] = values.view(np.uint8)
    out = np.zeros(4 * isa.lanes + 16, np.uint8)
    kernels.masked(isa, address(memory) + offset, isa.lanes, address(out) + offset)
    assert (out[offset : offset + 4 * isa.lanes].view(np.float32) == values).all()


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_scalars_may_lie_anywhere(offset: int) -> None:
    source = np.random.default_rng(3).integers(0, 256, 18 + 4).astype(np.uint8)
    target = np.zeros(18 + 4, np.uint8)
    kernels.moved(address(source) + offset, address(target) + offset)
    np.testing.assert_array_equal(target[offset : offset + 18], source[offset : offset + 18])
    assert not target[:offset].any()
    assert not target[offset + 18 :].any()


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, np.inf, -1e-45, 1e-6])
def test_bits_and_square_roots(value: float) -> None:
    bits = int(np.float32(value).view(np.uint32))
    for high in (0, 7 << 32):  # the upper half of the int64 means nothing
        found, root = kernels.scalars(bits | high, abs(value))
        assert np.float32(found).view(np.uint32) == bits
        assert root == np.sqrt(np.float32(abs(value)))


def test_compiled_code_still_knows_nan() -> None:
    assert not FASTMATH & {"nnan", "ninf", "fast"}
    assert kernels.is_nan(np.float32("nan")) == (True, True)
    assert kernels.is_nan(np.float32("inf")) == (False, False)
