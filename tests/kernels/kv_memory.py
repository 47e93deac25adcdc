"""The KV cache of one layer as kernels see it, full of garbage where no token has been."""

import numpy as np

from edgeqwen.kernels.attention_types import SEGMENT
from tests.isas import address
from tests.oracles.kv_cache import decode, encode, held


class KvMemory:
    """Keys and values of some KV heads; ``garbage`` is what the rest of the memory holds.

    Segments lie in memory in the opposite order, with a gap between any two.
    """

    def __init__(
        self,
        n_kv_heads: int,
        head_dim: int,
        cache_type: str,
        n_positions: int,
        *,
        garbage: float = np.nan,
        layer: int = 1,
    ) -> None:
        self.shape = (n_kv_heads, head_dim)
        n_segments = -(-n_positions // SEGMENT)
        self.cache_type, self.capacity = cache_type, n_segments * SEGMENT
        nothing = np.full((SEGMENT, head_dim), garbage, np.float32)
        halves = [encode(nothing, cache_type, is_value=is_value) for is_value in (False, True)]
        # [segment][layer][KV head][K, V][bytes]; only every other segment and one layer is used.
        self.memory = np.empty(
            (2 * n_segments, layer + 2, n_kv_heads, 2, len(halves[0])), dtype=np.uint8
        )
        self.memory[:] = halves
        self.layer = layer
        self.segments = self.memory[-2::-2]
        self.table = address(self.memory) + self.memory.strides[0] * np.arange(
            2 * n_segments - 2, -1, -2, np.int64
        )

    def arguments(self) -> dict[str, int]:
        """Returns what ATTENTION and ROPE say of the cache, but its address."""
        _, layer, head, half, _ = self.memory.strides
        return {"layer": self.layer * layer, "head_bytes": head, "v_offset": half}

    @property
    def address(self) -> int:
        """The address of the table of segments."""
        return address(self.table)

    def fill(self, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Writes [n_positions, n_kv_heads, head_dim]; returns what the cache then holds of them."""
        n, n_kv_heads = len(k), self.shape[0]
        for head in range(n_kv_heads):
            for which, values in enumerate((k, v)):
                tiles = self.tiles(head, which)
                tiles[:n] = values[:, head]
                self._write(head, which, tiles)
        return held(k, self.cache_type), held(v, self.cache_type)

    def forget(self, position: int) -> np.ndarray:
        """Puts garbage in the place of one position; returns a copy of all memory from before."""
        before = self.memory.copy()
        for head in range(self.shape[0]):
            for which in range(2):
                tiles = self.tiles(head, which)
                kept = self._encoded(which, tiles)
                tiles[position] = np.nan
                lost = self._encoded(which, tiles)
                memory = self.segments[:, self.layer, head, which]
                memory[kept != lost] = lost[kept != lost]
        return before

    def tiles(self, head: int, which: int) -> np.ndarray:
        """Reads one head's keys (0) or values (1) back as a copy [capacity, head_dim]."""
        flat = np.array(self.segments[:, self.layer, head, which])
        return decode(flat, self.cache_type, self.shape[1], is_value=bool(which))

    def _write(self, head: int, which: int, tiles: np.ndarray) -> None:
        self.segments[:, self.layer, head, which] = self._encoded(which, tiles)

    def _encoded(self, which: int, tiles: np.ndarray) -> np.ndarray:
        encoded = encode(tiles, self.cache_type, is_value=bool(which))
        return encoded.reshape(len(self.segments), -1)
