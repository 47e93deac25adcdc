"""The KV cache of one layer as kernels see it, full of garbage where no token has been."""

import numpy as np

from tests.isas import address
from tests.oracles.kernels import key_tiles, value_tiles

DTYPES = {"f16": np.float16, "f32": np.float32}


class KvMemory:
    """Keys and values of some KV heads; ``garbage`` is what the rest of the memory holds."""

    def __init__(
        self,
        n_kv_heads: int,
        head_dim: int,
        cache_type: str,
        capacity: int,
        *,
        garbage: float = np.nan,
        layer: int = 1,
    ) -> None:
        self.shape = (n_kv_heads, head_dim)
        self.dtype, self.capacity = DTYPES[cache_type], capacity
        # [layer][KV head][K, V][elements]; only one layer is used.
        self.memory = np.full(
            (layer + 2, n_kv_heads, 2, capacity * head_dim), garbage, dtype=self.dtype
        )
        self.layer = layer

    def arguments(self) -> dict[str, int]:
        """Returns what ATTENTION and ROPE say of the cache, but its address."""
        layer, head, half, _ = self.memory.strides
        return {"layer": self.layer * layer, "head_bytes": head, "v_offset": half}

    @property
    def address(self) -> int:
        return address(self.memory)

    def fill(self, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Writes [n_positions, n_kv_heads, head_dim]; returns what the cache then holds of them."""
        n, n_kv_heads = len(k), self.shape[0]
        for head in range(n_kv_heads):
            for which, values in enumerate((k, v)):
                tiles = self.tiles(head, which)
                tiles[:n] = values[:, head]
                lay_out = value_tiles if which else key_tiles
                self.memory[self.layer, head, which] = lay_out(tiles).ravel()
        held_k, held_v = (a.astype(self.dtype).astype(np.float32) for a in (k, v))
        return held_k, held_v

    def forget(self, position: int) -> np.ndarray:
        """Puts garbage in the place of one position; returns a copy of all memory from before."""
        before = self.memory.copy()
        for head in range(self.shape[0]):
            for which in range(2):
                tiles = self.tiles(head, which)
                tiles[position] = np.nan
                lay_out = value_tiles if which else key_tiles
                self.memory[self.layer, head, which] = lay_out(tiles).ravel()
        return before

    def tiles(self, head: int, which: int) -> np.ndarray:
        """Reads one head's keys (0) or values (1) back as a copy [capacity, head_dim]."""
        head_dim, flat = self.shape[1], np.array(self.memory[self.layer, head, which])
        if which:
            values = flat.reshape(self.capacity // 64, head_dim // 32, 64, 32)
            return values.transpose(0, 2, 1, 3).reshape(self.capacity, head_dim)
        keys = flat.reshape(self.capacity // 32, head_dim, 32)
        return keys.transpose(0, 2, 1).reshape(self.capacity, head_dim)
