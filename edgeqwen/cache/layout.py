"""Where a sequence's keys and values lie.

A region holds, for each layer and KV head in turn, K and then V, each with room for ``capacity``
positions, in the tiles that attention streams:

- K [capacity / 32][head_dim][32 positions]
- V [capacity / 64][head_dim / 32][64 positions][32 dimensions]

A new token writes only its own elements. Capacity is fixed, so nothing ever moves; memory that no
token has reached is never touched, and costs nothing.
"""

from dataclasses import dataclass

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.kernels.attention_types import ELEMENT_BYTES

POSITIONS_STEP = 64


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The layout for one model, cache type ("f16" or "f32") and capacity in positions."""

    n_layers: int
    n_kv_heads: int
    head_dim: int
    cache_type: str
    capacity: int

    @classmethod
    def of(cls, config: ModelConfig, max_context: int, cache_type: str) -> "CacheLayout":
        """Returns the layout with room for ``max_context`` positions, rounded up to tiles.

        Raises OptionError for an unknown cache type.
        """
        if cache_type not in ELEMENT_BYTES:
            known = ", ".join(ELEMENT_BYTES)
            raise OptionError(f"cache_type is {cache_type!r}; it must be one of {known}")
        capacity = -(-max_context // POSITIONS_STEP) * POSITIONS_STEP
        return cls(config.n_layers, config.n_kv_heads, config.head_dim, cache_type, capacity)

    @property
    def v_offset(self) -> int:
        """Bytes from a KV head's K to its V."""
        return self.capacity * self.head_dim * ELEMENT_BYTES[self.cache_type]

    @property
    def head_bytes(self) -> int:
        return 2 * self.v_offset

    @property
    def layer_bytes(self) -> int:
        return self.n_kv_heads * self.head_bytes

    @property
    def total_bytes(self) -> int:
        return self.n_layers * self.layer_bytes

    @property
    def bytes_per_token(self) -> int:
        return self.total_bytes // self.capacity
