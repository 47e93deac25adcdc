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

from dataclasses import dataclass

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.kernels.attention_types import SEGMENT
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


def n_segments(n_tokens: int) -> int:
    """Returns how many segments hold so many tokens."""
    return -(-n_tokens // SEGMENT)
