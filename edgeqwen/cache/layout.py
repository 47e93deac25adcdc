"""Where a sequence's keys and values lie.

They lie in *segments* of 256 positions each, anywhere in memory: a step finds them through a table
of addresses. So a sequence grows without moving, takes no memory for positions that no token has
reached, and may share segments with others. A segment holds, for each layer and KV head in turn, K
and then V, in the tiles that attention streams:

- K [256 / 32][head_dim / 32] of blocks [32 dimensions][32 positions]
- V [256 / 64][head_dim / 32] of blocks [64 positions][32 dimensions]

A block of a quantized type begins with the scales of its positions, float16 [32] or [64]. The types
are in ``edgeqwen.kernels.cache_types``. A new token writes only its own elements.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.kernels.attention_types import SEGMENT, STREAM
from edgeqwen.kernels.cache_types import CACHE_TYPES


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The layout for one model and cache type, one of ``CACHE_TYPES``."""

    n_layers: int
    n_kv_heads: int
    head_dim: int
    cache_type: str

    @classmethod
    def of(cls, config: ModelConfig, cache_type: str) -> "CacheLayout":
        """Returns the layout for a model. Raises OptionError for an unknown cache type."""
        if cache_type not in CACHE_TYPES:
            known = ", ".join(CACHE_TYPES)
            raise OptionError(f"cache_type is {cache_type!r}; it must be one of {known}")
        return cls(config.n_layers, config.n_kv_heads, config.head_dim, cache_type)

    @classmethod
    def checked(
        cls, n_layers: int, n_kv_heads: int, head_dim: int, cache_type: str
    ) -> "CacheLayout":
        """Returns a layout whose numbers come from a file. Raises ValueError for senseless ones."""
        if cache_type not in CACHE_TYPES:
            raise ValueError(f"its cache type is {cache_type!r}, which this version doesn't know")
        fits = 0 < n_layers <= 4096 and 0 < n_kv_heads <= 4096 and 0 < head_dim <= 4096
        if not fits or head_dim % STREAM:
            shape = f"{n_layers} layers, {n_kv_heads} KV heads, head_dim {head_dim}"
            raise ValueError(f"its keys and values have a shape that no model has: {shape}")
        return cls(n_layers, n_kv_heads, head_dim, cache_type)

    @property
    def v_offset(self) -> int:
        """Bytes from a KV head's K to its V."""
        return SEGMENT * self.head_dim // 32 * CACHE_TYPES[self.cache_type].bytes_of_32

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
            segment = segment.copy()
            self.clear(segment, n_positions)
        return zlib.crc32(segment.data)

    def clear(self, segment: NDArray[np.uint8], n_positions: int) -> None:
        """Sets what a segment holds of positions from ``n_positions`` on to zero."""
        halves = segment.reshape(-1, 2, self.v_offset)
        if n_positions < SEGMENT:
            self._forget(halves[:, 0], STREAM, n_positions)
            self._forget(halves[:, 1], 64, n_positions)

    def _forget(self, half: NDArray[np.uint8], positions: int, n_positions: int) -> None:
        """Sets what lies behind ``n_positions`` to zero: of K or V, with 32 or 64 in a block.

        half: uint8 [heads, v_offset].
        """
        kind, n_heads, n_blocks = CACHE_TYPES[self.cache_type], len(half), self.head_dim // STREAM
        tiles = half.reshape(n_heads, SEGMENT // positions, n_blocks, positions * kind.bytes_of_32)
        tile, inside = divmod(n_positions, positions)
        tiles[:, tile + 1 :] = 0
        last = tiles[:, tile]
        scale_bytes = positions * kind.scale_bytes
        last[..., kind.scale_bytes * inside : scale_bytes] = 0
        if positions == STREAM:
            step = max(1, kind.row_bytes // STREAM)  # of K, positions lie side by side
            codes = last[..., scale_bytes:].reshape(n_heads, n_blocks, -1, positions * step)
            codes[..., step * inside :] = 0
        else:
            last[..., scale_bytes + kind.row_bytes * inside :] = 0


def n_segments(n_tokens: int) -> int:
    """Returns how many segments hold so many tokens."""
    return -(-n_tokens // SEGMENT)
