"""Where a sequence's keys and values lie.

They lie in *segments* of 256 positions each, anywhere in memory: a step finds them through a table
of addresses. So a sequence grows without moving, takes no memory for positions that no token has
reached, and may share segments with others. A segment holds, for each layer and KV head in turn, K
and then V, in the tiles that attention streams:

- K [256 / 32][head_dim][32 positions]
- V [256 / 64][head_dim / 32][64 positions][32 dimensions]

A new token writes only its own elements.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.kernels.attention_types import ELEMENT_BYTES, SEGMENT, STREAM


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The layout for one model and cache type ("f16" or "f32")."""

    n_layers: int
    n_kv_heads: int
    head_dim: int
    cache_type: str

    @classmethod
    def of(cls, config: ModelConfig, cache_type: str) -> "CacheLayout":
        """Returns the layout for a model. Raises OptionError for an unknown cache type."""
        if cache_type not in ELEMENT_BYTES:
            known = ", ".join(ELEMENT_BYTES)
            raise OptionError(f"cache_type is {cache_type!r}; it must be one of {known}")
        return cls(config.n_layers, config.n_kv_heads, config.head_dim, cache_type)

    @classmethod
    def checked(
        cls, n_layers: int, n_kv_heads: int, head_dim: int, cache_type: str
    ) -> "CacheLayout":
        """Returns a layout whose numbers come from a file. Raises ValueError for senseless ones."""
        if cache_type not in ELEMENT_BYTES:
            raise ValueError(f"its cache type is {cache_type!r}, which this version doesn't know")
        if not (0 < n_layers <= 4096 and 0 < n_kv_heads <= 4096 and 0 < head_dim <= 4096):
            shape = f"{n_layers} layers, {n_kv_heads} KV heads, head_dim {head_dim}"
            raise ValueError(f"its keys and values have a shape that no model has: {shape}")
        return cls(n_layers, n_kv_heads, head_dim, cache_type)

    @property
    def v_offset(self) -> int:
        """Bytes from a KV head's K to its V."""
        return SEGMENT * self.head_dim * ELEMENT_BYTES[self.cache_type]

    @property
    def head_bytes(self) -> int:
        return 2 * self.v_offset

    @property
    def layer_bytes(self) -> int:
        return self.n_kv_heads * self.head_bytes

    @property
    def segment_bytes(self) -> int:
        return self.n_layers * self.layer_bytes

    @property
    def bytes_per_token(self) -> int:
        return self.segment_bytes // SEGMENT

    def checksum(self, segment: NDArray[np.uint8], n_positions: int) -> int:
        """Returns the CRC-32 of a segment as if positions from ``n_positions`` on were zero.

        segment: uint8 [segment_bytes].
        """
        if n_positions < SEGMENT:
            dtype = f"V{ELEMENT_BYTES[self.cache_type]}"
            copy = segment.copy()
            halves = copy.view(dtype).reshape(-1, 2, SEGMENT * self.head_dim)
            keys = halves[:, 0].reshape(-1, SEGMENT // STREAM, self.head_dim, STREAM)
            values = halves[:, 1].reshape(-1, SEGMENT // 64, self.head_dim // STREAM, 64, STREAM)
            zero = np.zeros((), dtype)
            tile, inside = divmod(n_positions, STREAM)
            keys[:, tile, :, inside:] = zero
            keys[:, tile + 1 :] = zero
            tile, inside = divmod(n_positions, 64)
            values[:, tile, :, inside:] = zero
            values[:, tile + 1 :] = zero
            segment = copy
        return zlib.crc32(segment.data)


def n_segments(n_tokens: int) -> int:
    """Returns how many segments hold so many tokens."""
    return -(-n_tokens // SEGMENT)
