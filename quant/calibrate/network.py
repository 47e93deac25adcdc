"""The parts of the network between matrix products, in float32 numpy: norm, attention, SwiGLU."""

import numpy as np
import numpy.typing as npt

from edgeqwen.config import ModelConfig
from edgeqwen.model.rope_frequencies import rope_frequencies

Floats = npt.NDArray[np.float32]


def rms_norm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    """float32 [n_tokens][hidden_size] -> the same shape."""
    mean = np.mean(x * x, axis=1, keepdims=True)
    normed: Floats = x / np.sqrt(mean + np.float32(epsilon)) * weight
    return normed


def swiglu(gate: Floats, up: Floats) -> Floats:
    """silu(gate) * up, elementwise."""
    with np.errstate(over="ignore"):  # exp of a large negative gate: the result is 0
        activated: Floats = gate / (1 + np.exp(-gate)) * up
    return activated


class Attention:
    """Causal attention within windows of ``length`` tokens, each from position 0."""

    def __init__(self, config: ModelConfig, length: int) -> None:
        self.length, self.config = length, config
        frequencies, factor = rope_frequencies(config)
        angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
        self._cos, self._sin = np.cos(angles) * factor, np.sin(angles) * factor
        self._future = np.triu(np.ones((length, length), bool), 1)

    def __call__(self, qkv: Floats) -> Floats:
        """One window: q, k, v side by side, float32 [length][...] -> [length][heads * head_dim]."""
        c, n = self.config, len(qkv)
        q_size, kv_size = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        q, k, v = (
            part.reshape(n, -1, c.head_dim).transpose(1, 0, 2)
            for part in np.split(qkv, [q_size, q_size + kv_size], axis=1)
        )
        k, scale = self._rotated(k), np.float32(c.head_dim**-0.5)
        group = c.n_heads // c.n_kv_heads
        out = np.empty((n, c.n_heads, c.head_dim), np.float32)
        # Head by head: the scores of all of them would be the largest array of all.
        for head in range(c.n_heads):
            scores = self._rotated(q[head]) * scale @ k[head // group].T
            scores[self._future[:n, :n]] = -np.inf
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=1, keepdims=True)
            out[:, head] = scores @ v[head // group]
        return out.reshape(n, -1)

    def _rotated(self, x: Floats) -> Floats:
        """Rotates float32 [..., length, head_dim] by position: element i pairs with i + half."""
        cos, sin = self._cos[: x.shape[-2]], self._sin[: x.shape[-2]]
        first, second = np.split(x, 2, axis=-1)
        both = [first * cos - second * sin, second * cos + first * sin]
        return np.concatenate(both, axis=-1).astype(np.float32)
