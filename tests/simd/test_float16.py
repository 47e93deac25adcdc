"""Conversions from and to float16: in hardware where the CPU has it, and in integer code."""

import numpy as np
import pytest

from edgeqwen.simd.isa import Isa
from tests.isas import ALL_ISAS, TEST_ISAS, address, each_isa
from tests.simd import kernels

HALVES = np.arange(65536, dtype=np.uint16).view(np.float16)


def widen(isa: Isa, halves: np.ndarray) -> np.ndarray:
    out = np.zeros(len(halves), np.float32)
    kernels.widened(isa, address(halves), address(out), len(halves))
    return out


def narrow(isa: Isa, x: np.ndarray) -> np.ndarray:
    out = np.zeros(len(x), np.float16)
    kernels.narrowed(isa, address(x), address(out), len(x))
    return out


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Bit by bit, but for the payload of NaN."""
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    bits = f"u{expected.itemsize}"
    np.testing.assert_array_equal(found[~nan].view(bits), expected[~nan].view(bits))


def test_integer_code_is_tested() -> None:
    assert any(not isa.f16 for isa in TEST_ISAS)


@each_isa(ALL_ISAS)
def test_every_half_widens(isa: Isa) -> None:
    with np.errstate(invalid="ignore"):  # on ARM, numpy reports signalling NaN
        expected = HALVES.astype(np.float32)
    same(widen(isa, HALVES), expected)


@each_isa(ALL_ISAS)
def test_every_half_survives_both_ways(isa: Isa) -> None:
    same(narrow(isa, widen(isa, HALVES)), HALVES)


@each_isa(ALL_ISAS)
def test_rounding_between_neighbours(isa: Isa) -> None:
    """Exactly between two halves, where ties go to even, and just beside."""
    finite = HALVES[:0x7C00].astype(np.float32)  # from 0 up to the largest
    middle = (finite + np.append(finite[1:], np.float32(65536))) / 2
    infinity = np.float32(np.inf)
    x = np.concatenate([np.nextafter(middle, -infinity), middle, np.nextafter(middle, infinity)])
    for signed in (x, -x):
        with np.errstate(over="ignore"):
            same(narrow(isa, signed), signed.astype(np.float16))


@each_isa(ALL_ISAS)
def test_special_floats(isa: Isa) -> None:
    payloads = np.array([0x7F800001, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF, 0x7F801FFF], np.uint32)
    x = np.concatenate(
        [
            payloads.view(np.float32),
            (payloads | 0x80000000).view(np.float32),
            np.array([0.0, np.inf, 65504, 65519.996, 65520, 65536, 3.4e38], np.float32),
            np.array([2.0**-24, 2.0**-25, 2.0**-26, 1e-38, 1e-45, 2.0**-14], np.float32),
        ]
    )
    x = np.concatenate([x, -x, np.zeros(-2 * len(x) % 16, np.float32)])
    with np.errstate(over="ignore", invalid="ignore"):
        same(narrow(isa, x), x.astype(np.float16))


@each_isa(ALL_ISAS)
@pytest.mark.parametrize("seed", [0, 1])
def test_random_floats(isa: Isa, seed: int) -> None:
    rng = np.random.default_rng(seed)
    any_bits = rng.integers(0, 2**32, 1 << 18, dtype=np.uint32).view(np.float32)
    exponents = rng.integers(-27, 18, 1 << 18)
    in_range = np.ldexp(rng.uniform(-1, 1, 1 << 18), exponents).astype(np.float32)
    for x in (any_bits, in_range):
        with np.errstate(over="ignore", invalid="ignore"):
            same(narrow(isa, x), x.astype(np.float16))
