"""Where keys and values lie: sizes and offsets that kernels rely on."""

import numpy as np
import pytest

from edgeqwen.cache import CacheLayout
from edgeqwen.cache.layout import n_segments
from edgeqwen.errors import OptionError
from tests.config_samples import FAMILY, from_gguf, from_hf, hf_config
from tests.oracles.kv_cache import encode

# KV bytes a token in float16, as published for the family.
BYTES_PER_TOKEN = {
    "0.5B": 12288,
    "1.5B": 28672,
    "3B": 36864,
    "7B": 57344,
    "14B": 196608,
    "32B": 262144,
    "72B": 327680,
}


@pytest.mark.parametrize("size", FAMILY)
def test_bytes_per_token_of_the_family(size: str) -> None:
    config = from_hf(hf_config(size))
    assert CacheLayout.of(config, "f16").bytes_per_token == BYTES_PER_TOKEN[size]
    assert CacheLayout.of(config, "f32").bytes_per_token == 2 * BYTES_PER_TOKEN[size]
    assert CacheLayout.of(config, "bf16").bytes_per_token == BYTES_PER_TOKEN[size]
    # A float16 scale for 32 codes: 34 and 18 bytes instead of 64.
    assert CacheLayout.of(config, "q8_0").bytes_per_token == BYTES_PER_TOKEN[size] * 34 // 64
    assert CacheLayout.of(config, "q4_0").bytes_per_token == BYTES_PER_TOKEN[size] * 18 // 64


@pytest.mark.parametrize(
    ("cache_type", "bytes_of_32"),
    [("f16", 64), ("bf16", 64), ("q8_0", 34), ("q4_0", 18), ("f32", 128)],
)
def test_offsets(cache_type: str, bytes_of_32: int) -> None:
    """Layer by layer, KV head by KV head: K, then V."""
    config = from_gguf({"qwen2.attention.key_length": 32, "qwen2.attention.value_length": 32})
    layout = CacheLayout.of(config, cache_type)
    assert (layout.n_layers, layout.n_kv_heads, layout.head_dim) == (2, 2, 32)
    assert layout.v_offset == 256 * bytes_of_32
    assert layout.head_bytes == 2 * layout.v_offset
    assert layout.layer_bytes == 2 * layout.head_bytes
    assert layout.segment_bytes == 2 * layout.layer_bytes
    # Vectors of every width are aligned, since every tile begins at a multiple of 64 bytes.
    assert layout.v_offset % 64 == 0


@pytest.mark.parametrize(("n_tokens", "expected"), [(0, 0), (1, 1), (256, 1), (257, 2)])
def test_segments(n_tokens: int, expected: int) -> None:
    assert n_segments(n_tokens) == expected


def test_an_unknown_cache_type_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        CacheLayout.of(from_gguf(), "q5_0")
    assert str(caught.value) == (
        "cache_type is 'q5_0'; it must be one of f16, bf16, q8_0, q4_0, f32"
    )


@pytest.mark.parametrize("n_positions", [1, 31, 32, 64, 100, 255, 256])
@pytest.mark.parametrize("cache_type", ["f16", "bf16", "q8_0", "q4_0", "f32"])
def test_a_checksum_is_of_its_positions_alone(cache_type: str, n_positions: int) -> None:
    layout = CacheLayout(1, 2, 64, cache_type)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 256, 64)).astype(np.float32)

    def checksum() -> int:
        parts = [encode(x[i], cache_type, is_value=bool(i % 2)) for i in range(4)]
        segment = np.concatenate(parts)
        assert len(segment) == layout.segment_bytes
        return layout.checksum(segment, n_positions)

    before = checksum()
    x[:, n_positions:] = rng.standard_normal((4, 256 - n_positions, 64)) * 3
    assert checksum() == before
    for i in range(4):
        x[i, n_positions - 1, 40] += 50
        assert checksum() != before
        x[i, n_positions - 1, 40] -= 50


def test_a_file_with_heads_that_no_model_has_is_refused() -> None:
    """Blocks have 32 dimensions."""
    with pytest.raises(ValueError, match="head_dim 40"):
        CacheLayout.checked(2, 2, 40, "q8_0")
    with pytest.raises(ValueError, match="'q5_0'"):
        CacheLayout.checked(2, 2, 64, "q5_0")
