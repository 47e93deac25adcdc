"""What stands in for keys and values when speeds are measured: numbers of a usual size."""

import numpy as np
import pytest

from benchmarks.cache_types import block
from edgeqwen.kernels.cache_types import CACHE_TYPES


@pytest.mark.parametrize("n_positions", [32, 64])
@pytest.mark.parametrize("name", CACHE_TYPES)
def test_a_block_is_as_long_as_the_cache_has_them(name: str, n_positions: int) -> None:
    assert len(block(name, n_positions)) == n_positions * CACHE_TYPES[name].bytes_of_32


@pytest.mark.parametrize("name", CACHE_TYPES)
def test_no_number_is_very_small_or_large(name: str) -> None:
    data = np.frombuffer(block(name, 32), np.uint8)
    kind = CACHE_TYPES[name]
    scales, elements = data[: 32 * kind.scale_bytes], data[32 * kind.scale_bytes :]
    if kind.scale_bytes:
        assert (scales.view("<f2") > 0.03).all()
        codes = elements.view(np.int8)
        assert len(set(codes.tolist())) > 40
        return
    if name == "bf16":
        x = (elements.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        x = elements.view("<f2" if name == "f16" else "<f4").astype(np.float32)
    assert 0.8 < x.std() < 1.2
    assert 1e-6 < np.abs(x).min() < np.abs(x).max() < 6
