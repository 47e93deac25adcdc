"""Conversion to bfloat16."""

import numpy as np

from edgeqwen.simd.isa import Isa
from tests.isas import ALL_ISAS, address, each_isa
from tests.oracles.kv_cache import bf16, from_bf16
from tests.simd import kernels


def narrow(isa: Isa, x: np.ndarray) -> np.ndarray:
    out = np.zeros(len(x), np.uint16)
    kernels.narrowed_to_bf16(isa, address(x), address(out), len(x))
    return out


@each_isa(ALL_ISAS)
def test_every_number_stays_and_between_two_the_even_is_taken(isa: Isa) -> None:
    """What is just beside the middle goes to its neighbour; NaN stays NaN."""
    bits = np.arange(65536, dtype=np.uint32) << 16
    numbers = bits.view(np.float32)
    nan = np.isnan(numbers)
    found = narrow(isa, numbers)
    np.testing.assert_array_equal(found[~nan], (bits >> 16)[~nan])
    assert np.isnan(from_bf16(found)[nan]).all()
    for low_half, up in ((0x7FFF, 0), (0x8000, bits >> 16 & 1), (0x8001, 1), (0xFFFF, 1)):
        found = narrow(isa, (bits | np.uint32(low_half)).view(np.float32))
        nan = (bits & 0x7F800000) == 0x7F800000
        np.testing.assert_array_equal(found[~nan], ((bits >> 16) + up)[~nan])
        assert np.isnan(from_bf16(found)[nan]).all()


@each_isa(ALL_ISAS)
def test_as_the_twin_has_it(isa: Isa) -> None:
    x = np.random.default_rng(0).integers(0, 2**32, 1 << 16, dtype=np.uint32).view(np.float32)
    np.testing.assert_array_equal(narrow(isa, x), bf16(x))
