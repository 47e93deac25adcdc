"""Which biases of keys stay out of the KV cache, and the rotations that attention needs for them.

``edgeqwen.kernels.cache_types`` says why. Biases are chosen by what they are beside the rest of a
key, W x: x is normalised, so each row of W, times the norm's weights, tells about how much that
scatters. Layers without large biases pay nothing. What is chosen depends on the model and the cache
type alone.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.layout import CacheLayout
from edgeqwen.cache.region import Region
from edgeqwen.config import ModelConfig
from edgeqwen.kernels.attention_types import SEGMENT
from edgeqwen.kernels.cache_types import CACHE_TYPES
from edgeqwen.kernels.embed import EMBED, embed
from edgeqwen.kernels.key_biases import HEADER, ROTATION_BYTES
from edgeqwen.kernels.state import STATE
from edgeqwen.model.rope_frequencies import rope_frequencies
from edgeqwen.model.weights import LayerWeights, Matrix, Weights
from edgeqwen.simd.compile import INT
from edgeqwen.simd.isa import Isa

SAMPLED_ROWS = 8
"""Rows of W of each KV head that tell how much its keys scatter."""


class KeyBiases:
    """The biases of one model's keys that its cache type keeps apart; chosen at the first step."""

    def __init__(
        self, config: ModelConfig, weights: Weights, layout: CacheLayout, isa: Isa
    ) -> None:
        self._config, self._weights, self._isa = config, weights, isa
        self._factor = CACHE_TYPES[layout.cache_type].bias_factor
        size = config.n_layers, config.n_kv_heads, config.head_dim
        # As kernels read them: what is subtracted, and the pairs of dimensions that it concerns.
        self._subtracted = np.zeros(size, np.float32)
        self._pairs = np.zeros((*size[:2], HEADER + size[2]), np.int32)
        self._rows: NDArray[np.intp] | None = None  # the pairs that any head has
        self._segments: list[Region] = []
        self._table = np.zeros(0, np.int64)

    def subtracted(self, layer: int) -> int:
        """Returns the address of float32 [n_kv_heads][head_dim]; 0 if the type keeps none apart."""
        return 0 if self._factor is None else int(self._subtracted[layer].ctypes.data)

    def pairs(self, layer: int) -> int:
        """Returns the address of int32 [n_kv_heads][HEADER + head_dim] (``bias_factors``), or 0."""
        return 0 if self._factor is None else int(self._pairs[layer].ctypes.data)

    @property
    def apart(self) -> NDArray[np.float32]:
        """The biases kept apart, float32 [n_layers, n_kv_heads, head_dim]; zero until chosen."""
        return self._subtracted.copy()

    def kernels(self) -> dict[tuple[str, str], Callable[[], object]]:
        """Returns what choosing compiles: by name, a function that does it."""
        if self._factor is None:
            return {}
        tilings = [self._keys_of(layer).format.gemv_tiling(self._isa) for layer in self._layers]
        return {
            ("embed", t.token_name): functools.partial(embed.address, t, INT, INT, INT)
            for t in tilings
        }

    @property
    def most_bytes(self) -> int:
        """The bytes that rotations of 256 positions take at most, as if all pairs needed them."""
        if self._factor is None:
            return 0
        return SEGMENT // 32 * (self._config.head_dim // 2) * ROTATION_BYTES

    def rotations(self, n_positions: int) -> int:
        """Makes the rotations of so many positions; returns the address of their table, or 0.

        The weights must be loaded. Valid until the next call. Raises OptionError when memory is
        refused.
        """
        if self._factor is None:
            return 0
        if self._rows is None:
            self._choose(self._factor)
        rows = self._rows
        if rows is None or len(rows) == 0:
            return 0
        n = -(-n_positions // SEGMENT)
        # The table comes last: what breaks off before it is done again.
        if n > len(self._table):
            while len(self._segments) < n:
                self._segments.append(self._rotations_of(len(self._segments), rows))
            self._table = np.array([segment.address for segment in self._segments], np.int64)
        return int(self._table.ctypes.data)

    def close(self) -> None:
        """Frees the rotations."""
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    @property
    def _layers(self) -> list[LayerWeights]:
        return self._weights.layers

    def _choose(self, factor: float) -> None:
        n_kv, half = self._config.n_kv_heads, self._config.head_dim // 2
        chosen = np.zeros((len(self._layers), n_kv, half), bool)
        for i, layer in enumerate(self._layers):
            first = self._config.n_heads * self._config.head_dim
            biases = layer.qkv_bias[first : first + 2 * n_kv * half].reshape(n_kv, 2, half)
            magnitudes = np.hypot(*biases.astype(np.float64).transpose(1, 0, 2))
            limit = factor * self._spread(layer)[:, None]
            # Nothing is chosen by a comparison with what is no number.
            chosen[i] = (magnitudes > limit) & np.isfinite(magnitudes)
            both = np.concatenate([chosen[i], chosen[i]], axis=-1)
            self._subtracted[i] = np.where(both, biases.reshape(n_kv, 2 * half), 0)
        rows = np.flatnonzero(chosen.any(axis=(0, 1)))
        place = np.zeros(half, np.int32)
        place[rows] = np.arange(len(rows)) * ROTATION_BYTES
        for index in np.ndindex(*chosen.shape[:2]):
            pairs = np.flatnonzero(chosen[index])
            self._pairs[index][:HEADER] = len(pairs), len(rows) * ROTATION_BYTES
            self._pairs[index][HEADER:][: 2 * len(pairs)] = np.stack(
                [place[pairs], pairs], axis=-1
            ).reshape(-1)
        self._rows = rows  # last: what breaks off before it is done again

    def _spread(self, layer: LayerWeights) -> NDArray[np.float64]:
        """Returns about the standard deviation of W x in each KV head: float64 [n_kv_heads]."""
        n_kv, size = self._config.n_kv_heads, self._config.head_dim
        matrix = self._keys_of(layer)
        first = self._config.n_heads * size - matrix.row
        sampled = np.arange(0, size, max(1, size // SAMPLED_ROWS))
        rows = first + np.add.outer(np.arange(n_kv) * size, sampled)
        weights = _dequantized(matrix, rows.reshape(-1), self._isa) * layer.attn_norm
        squares = np.square(weights, dtype=np.float64).sum(-1).reshape(n_kv, -1)
        spread: NDArray[np.float64] = np.sqrt(squares.mean(-1))
        return spread

    def _keys_of(self, layer: LayerWeights) -> Matrix:
        """Returns the matrix that W is part of."""
        first = self._config.n_heads * self._config.head_dim
        return next(m for m in layer.qkv if m.row <= first < m.row + m.n_rows)

    def _rotations_of(self, segment: int, rows: NDArray[np.intp]) -> Region:
        """Makes the rotations of 256 positions as ``kernels.rope.angles`` computes them."""
        frequencies, factor = rope_frequencies(self._config)
        positions = np.arange(segment * SEGMENT, (segment + 1) * SEGMENT, dtype=np.float32)
        angles = (positions[:, None] * frequencies[rows]).astype(np.float64)
        turned = np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)
        turned *= np.float32(factor)
        n_bytes = SEGMENT // 32 * len(rows) * ROTATION_BYTES
        region = Region(n_bytes, purpose=f"attention to {(segment + 1) * SEGMENT} tokens")
        # From [position][pair][cosine, sine] to [tile][pair][cosine, sine][position].
        tiles = turned.reshape(-1, 32, len(rows), 2).transpose(0, 2, 3, 1)
        region.view(0, n_bytes).view(np.float32)[:] = tiles.reshape(-1)
        return region


def _dequantized(matrix: Matrix, rows: NDArray[np.intp], isa: Isa) -> NDArray[np.float32]:
    """Returns rows of a matrix: float32 [len(rows), n_columns]."""
    wanted = rows.astype(np.int32)
    found = np.empty((len(rows), matrix.n_columns), np.float32)
    state, arguments = np.zeros(1, STATE), np.zeros(1, EMBED)
    state["tokens"] = wanted.ctypes.data
    arguments["state"], arguments["x"] = state.ctypes.data, found.ctypes.data
    arguments["weights"], arguments["n_blocks"] = matrix.address, matrix.n_blocks
    tiling = matrix.format.gemv_tiling(isa)
    for i in range(len(rows)):
        embed(tiling, arguments.ctypes.data, i, 0)
    return found
