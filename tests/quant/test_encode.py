"""The encoders write what gguf.quants writes, bit for bit, and say what they can't write."""

import platform

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.encode import encode
from edgeqwen.quant.encode.widen import widen_bf16, widen_f16

Floats = npt.NDArray[np.float32]

ALL = (GgmlType.F32, GgmlType.F16, GgmlType.BF16, GgmlType.Q8_0, GgmlType.Q4_0)
BLOCKS = (GgmlType.Q8_0, GgmlType.Q4_0)


def encoded(type: GgmlType, weights: Floats) -> tuple[npt.NDArray[np.uint8], bool]:
    # Canaries on both sides: an encoder mustn't write outside of its bytes.
    n_bytes = type.n_bytes((weights.size,))
    room = np.full(n_bytes + 128, 0xA5, np.uint8)
    sound = encode(type, weights, room[64 : 64 + n_bytes])
    assert (room[:64] == 0xA5).all()
    assert (room[64 + n_bytes :] == 0xA5).all()
    return room[64 : 64 + n_bytes], sound


def reference(type: GgmlType, weights: Floats) -> npt.NDArray[np.uint8]:
    rows = weights.reshape(-1, type.block_size)
    with np.errstate(all="ignore"):
        blocks = gguf.quants.quantize(rows, gguf.GGMLQuantizationType(int(type)))
    return blocks.view(np.uint8).reshape(-1)


def assert_same(type: GgmlType, weights: Floats) -> None:
    found, sound = encoded(type, weights)
    expected = reference(type, weights)
    differs = found != expected
    if type in BLOCKS and platform.machine().lower() not in ("x86_64", "amd64"):
        # Where 1 / d overflows, the reference casts infinities to integers, and CPUs differ in
        # what that gives. The scale is 0 then, so that the codes mean nothing.
        blocks = differs.reshape(-1, type.type_size)
        blocks[(expected.reshape(blocks.shape)[:, :2] & [0xFF, 0x7F]).sum(axis=1) == 0, 2:] = False
    wrong = np.flatnonzero(differs)
    assert not len(wrong), f"{type.name}: {len(wrong)} bytes differ, the first is {wrong[0]}"
    assert sound


@pytest.mark.parametrize("type", ALL)
@pytest.mark.parametrize(
    "kind", ["normal", "heavy-tailed", "tiny", "bfloat16", "sparse", "constant", "ties", "halves"]
)
def test_random_weights(type: GgmlType, kind: str) -> None:
    rng = np.random.default_rng(1)
    n = 1 << 17
    x = rng.standard_normal(n, np.float32)
    if kind == "heavy-tailed":
        x = np.clip(rng.standard_cauchy(n), -6e4, 6e4).astype(np.float32)
    elif kind == "tiny":
        x *= np.exp2(rng.integers(-140, -10, n)).astype(np.float32)
    elif kind == "bfloat16":
        x = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    elif kind == "sparse":
        x[rng.random(n) < 0.97] = 0
        x[rng.random(n) < 0.3] *= -1
    elif kind == "constant":
        x = np.repeat(x[: n // 32], 32)
    elif kind == "ties":  # the largest magnitude with both signs in one block
        x = rng.integers(-3, 4, n).astype(np.float32)
    elif kind == "halves":  # codes that lie halfway between two
        x = rng.integers(-254, 255, n).astype(np.float32) * np.float32(0.5)
        x[::32] = 127
    assert_same(type, x)


@pytest.mark.parametrize("type", ALL)
@pytest.mark.parametrize("n_blocks", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127])
def test_every_length(type: GgmlType, n_blocks: int) -> None:
    n = n_blocks * type.block_size
    assert_same(type, np.random.default_rng(n).standard_normal(n, np.float32))


@pytest.mark.parametrize("type", ALL)
def test_special_values(type: GgmlType) -> None:
    tiny, smallest = np.finfo(np.float32).tiny, np.finfo(np.float32).smallest_subnormal
    blocks = []
    for value in (0.0, 1.0, tiny, tiny / 2, smallest, 7 * smallest, 2.9e-39, 3e-38, 6e-8, 1e-7):
        for sign in (1, -1):
            block = np.zeros(32, np.float32)
            block[5] = sign * value
            blocks += [block, np.full(32, sign * value, np.float32)]
            mixed = block.copy()
            mixed[20] = -sign * value
            blocks.append(mixed)
    blocks.append(np.full(32, -0.0, np.float32))
    assert_same(type, np.concatenate(blocks))


def test_f16_every_bit_pattern_of_the_upper_half() -> None:
    bits = (np.arange(1 << 16, dtype=np.uint32) << 16)[:, None] | np.array(
        [0, 1, 0x0FFF, 0x1000, 0x1001, 0x3000, 0xE000, 0xEFFF, 0xF000, 0xFFFF], np.uint32
    )
    x = bits.reshape(-1).view(np.float32)
    found, _ = encoded(GgmlType.F16, x)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).view(np.uint16)
    number = ~np.isnan(x)
    assert (found.view(np.uint16)[number] == expected[number]).all()
    assert np.isnan(found.view(np.float16)[~number]).all()


def test_bf16_every_bit_pattern_of_the_upper_half() -> None:
    bits = (np.arange(1 << 16, dtype=np.uint32) << 16)[:, None] | np.array(
        [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32
    )
    x = bits.reshape(-1).view(np.float32)
    found, _ = encoded(GgmlType.BF16, x)
    assert (found == reference(GgmlType.BF16, x)).all()


@pytest.mark.parametrize("type", BLOCKS)
def test_largest_weights_that_fit(type: GgmlType) -> None:
    limit = 65504.0 * (127 if type is GgmlType.Q8_0 else 8)
    x = np.random.default_rng(2).uniform(-limit, limit, 1 << 15).astype(np.float32)
    assert_same(type, x)


@pytest.mark.parametrize("type", ALL)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 31, 32, 1000, 1023])
def test_weights_that_are_not_finite_are_noticed(type: GgmlType, value: float, place: int) -> None:
    x = np.random.default_rng(3).standard_normal(1024, np.float32)
    x[place] = value
    assert not encoded(type, x)[1]


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (GgmlType.F16, 65520.0),
        (GgmlType.BF16, float.fromhex("0x1.ffp127")),
        (GgmlType.Q8_0, 65520.0 * 127),
        (GgmlType.Q4_0, -65520.0 * 8),
    ],
)
def test_weights_that_are_too_large_are_noticed(type: GgmlType, value: float) -> None:
    x = np.zeros(64, np.float32)
    x[40] = value
    assert not encoded(type, x)[1]
    x[40] = np.nextafter(np.float32(value), np.float32(0))
    assert encoded(type, x)[1]


@pytest.mark.parametrize("type", ALL)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_finite_bits(type: GgmlType, data: st.DataObject) -> None:
    exponents = st.integers(0, 0x8E00)  # below 65536, so that every type can say it
    upper = st.lists(exponents, min_size=32, max_size=32)
    sign_and_lower = st.lists(st.integers(0, 0x1FFFF), min_size=32, max_size=32)
    high = np.array(data.draw(upper), np.uint32)
    low = np.array(data.draw(sign_and_lower), np.uint32)
    high = np.minimum(high, 0x477F - 1)
    bits = (high << 16) | (low & 0xFFFF) | ((low >> 16) << 31)
    assert_same(type, bits.view(np.float32))


def test_widening_is_exact_for_all_halves() -> None:
    source = np.arange(1 << 16, dtype=np.uint16)
    out = np.empty(1 << 16, np.uint32)
    widen_f16(source, out)
    expected = source.view(np.float16).astype(np.float32)
    finite = np.isfinite(expected)
    assert (out[finite] == expected.view(np.uint32)[finite]).all()
    assert np.array_equal(np.isnan(out.view(np.float32)), np.isnan(expected))
    assert np.array_equal(np.isinf(out.view(np.float32)), np.isinf(expected))
    widen_bf16(source, out)
    assert (out == source.astype(np.uint32) << 16).all()
