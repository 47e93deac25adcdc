"""The KV cache of one layer as kernels see it, full of garbage where no token has been."""

import numpy as np

from edgeqwen.kernels.attention_types import SEGMENT
from tests.isas import address
from tests.oracles.kernels import key_tiles, value_tiles

DTYPES = {"f16": np.float16, "f32": np.float32}


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
        self.dtype, self.capacity = DTYPES[cache_type], n_segments * SEGMENT
        # [segment][layer][KV head][K, V][elements]; only every other segment and one layer is used.
        self.memory = np.full(
            (2 * n_segments, layer + 2, n_kv_heads, 2, SEGMENT * head_dim),
            garbage,
            dtype=self.dtype,
        )
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
        held_k, held_v = (a.astype(self.dtype).astype(np.float32) for a in (k, v))
        return held_k, held_v

    def forget(self, position: int) -> np.ndarray:
        """Puts garbage in the place of one position; returns a copy of all memory from before."""
        before = self.memory.copy()
        for head in range(self.shape[0]):
            for which in range(2):
                tiles = self.tiles(head, which)
                tiles[position] = np.nan
                self._write(head, which, tiles)
        return before

    def tiles(self, head: int, which: int) -> np.ndarray:
        """Reads one head's keys (0) or values (1) back as a copy [capacity, head_dim]."""
        head_dim, flat = self.shape[1], np.array(self.segments[:, self.layer, head, which])
        if which:
            values = flat.reshape(self.capacity // 64, head_dim // 32, 64, 32)
            return values.transpose(0, 2, 1, 3).reshape(self.capacity, head_dim)
        keys = flat.reshape(self.capacity // 32, head_dim, 32)
        return keys.transpose(0, 2, 1).reshape(self.capacity, head_dim)

    def _write(self, head: int, which: int, tiles: np.ndarray) -> None:
        laid_out = value_tiles(tiles) if which else key_tiles(tiles)
        self.segments[:, self.layer, head, which] = laid_out.reshape(len(self.segments), -1)
