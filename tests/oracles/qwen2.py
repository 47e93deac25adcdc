"""The Qwen2 network in plain numpy: the slow twin that the runtime is measured against.

Written for reading: no batching, every position computed at once. ``dtype`` chooses the
precision of the whole pass. Two switches imitate the runtime's own roundings, so that kernels can
be compared tightly: ``int8`` names the matrices whose inputs are rounded to int8 per 32 values,
and ``cache_type`` is how K and V are kept, K without the biases ``apart``, float32 [n_layers,
n_kv_heads, head_dim], if they are given.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgeqwen.config import ModelConfig
from tests.oracles.blocks import round_int8
from tests.oracles.kv_cache import held


class Qwen2:
    """A model from dequantized tensors by GGUF name; matrices are [outputs, inputs]."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, np.ndarray],
        *,
        dtype: Any = np.float64,
        int8: Collection[str] = (),
        cache_type: str | None = None,
        apart: np.ndarray | None = None,
    ) -> None:
        self.config = config
        self.weights = weights
        self.dtype = dtype
        self.int8 = frozenset(int8)
        self.cache_type = cache_type
        self.apart = apart

    def logits(
        self,
        tokens: Sequence[int] | np.ndarray,
        record: dict[str, np.ndarray] | None = None,
        past: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Returns the logits [n_tokens, vocab_size] after each of the tokens.

        ``record``, when given, receives the output of every step under its name
        (``blk.0.attn_norm``, ``blk.0.attn_q``, ...), to find where two passes part, and what each
        matrix is multiplied by (``blk.0.attn_q.input``), not rounded to int8. ``past`` holds the
        keys and values of tokens before these, by the names under which a record has them
        (``blk.0.k_rope`` and ``blk.0.v``, [n_kv_heads, n_past, head_dim]); a record then holds
        those of all.
        """
        record = {} if record is None else record
        past = {} if past is None else past
        n_past = past["blk.0.v"].shape[1] if past else 0
        x = self._tensor("token_embd.weight")[np.asarray(tokens)]
        cos, sin = rotations(self.config, n_past + np.arange(len(tokens)), self.dtype)
        for i in range(self.config.n_layers):
            name = f"blk.{i}"
            h = self._norm(f"{name}.attn_norm", x, record)
            x = x + self._attention(i, h, cos, sin, record, past)
            record[f"{name}.attn_residual"] = x
            h = self._norm(f"{name}.ffn_norm", x, record)
            x = x + self._feed_forward(name, h, record)
            record[f"{name}.ffn_residual"] = x
        h = self._norm("output_norm", x, record)
        head = "token_embd" if self.config.tie_word_embeddings else "output"
        return self._linear(head, h, record, label="logits")

    def _norm(self, name: str, x: np.ndarray, record: dict[str, np.ndarray]) -> np.ndarray:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        eps = self.dtype(self.config.rms_norm_eps)
        record[name] = x / np.sqrt(mean_square + eps) * self._tensor(f"{name}.weight")
        return record[name]

    def _attention(
        self,
        layer: int,
        h: np.ndarray,
        cos: np.ndarray,
        sin: np.ndarray,
        record: dict[str, np.ndarray],
        past: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        name, n_tokens, head_dim = f"blk.{layer}", len(h), self.config.head_dim
        n_groups = self.config.n_heads // self.config.n_kv_heads
        # (T, H * Hd) -> (H, T, Hd)
        q, k, v = (
            self._linear(f"{name}.attn_{which}", h, record)
            .reshape(n_tokens, -1, head_dim)
            .transpose(1, 0, 2)
            for which in "qkv"
        )
        apart = np.zeros_like(k) if self.apart is None else k * 0 + self.apart[layer][:, None]
        q, k = rotate(q, cos, sin), rotate(k - apart, cos, sin)
        if self.cache_type is not None:
            k, v = (held(x, self.cache_type).astype(self.dtype) for x in (k, v))
        k = k + rotate(apart, cos, sin)
        if past:
            k = np.concatenate([past[f"{name}.k_rope"], k], axis=1)
            v = np.concatenate([past[f"{name}.v"], v], axis=1)
        record[f"{name}.q_rope"], record[f"{name}.k_rope"], record[f"{name}.v"] = q, k, v
        k, v = np.repeat(k, n_groups, axis=0), np.repeat(v, n_groups, axis=0)
        scores = q @ k.transpose(0, 2, 1) / self.dtype(math.sqrt(head_dim))  # (H, T, past + T)
        n_positions = k.shape[1]
        future = np.triu(np.ones((n_tokens, n_positions), bool), n_positions - n_tokens + 1)
        scores = np.where(future, -np.inf, scores)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        out = (p @ v).transpose(1, 0, 2).reshape(n_tokens, -1)
        record[f"{name}.attention"] = out
        return self._linear(f"{name}.attn_output", out, record)

    def _feed_forward(self, name: str, h: np.ndarray, record: dict[str, np.ndarray]) -> np.ndarray:
        gate = self._linear(f"{name}.ffn_gate", h, record)
        up = self._linear(f"{name}.ffn_up", h, record)
        record[f"{name}.swiglu"] = gate / (1 + np.exp(-gate)) * up
        return self._linear(f"{name}.ffn_down", record[f"{name}.swiglu"], record)

    def _linear(
        self, name: str, x: np.ndarray, record: dict[str, np.ndarray], label: str | None = None
    ) -> np.ndarray:
        record[f"{name}.input"] = x
        if f"{name}.weight" in self.int8:
            x = round_int8(x).astype(self.dtype)
        y: np.ndarray = x @ self._tensor(f"{name}.weight").T
        if f"{name}.bias" in self.weights:
            y = y + self._tensor(f"{name}.bias")
        record[label or name] = y
        return y

    def _tensor(self, name: str) -> np.ndarray:
        tensor: np.ndarray = np.asarray(self.weights[name], self.dtype)
        return tensor


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotates [heads, n_tokens, head_dim] in the NeoX order: element i pairs with i + half."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def rotations(
    config: ModelConfig, positions: np.ndarray, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Returns cosines and sines [n_positions, head_dim / 2], YaRN's magnitude already in them."""
    frequencies, magnitude = rope_frequencies(config)
    angles = positions[:, None] * frequencies
    return (np.cos(angles) * magnitude).astype(dtype), (np.sin(angles) * magnitude).astype(dtype)


def rope_frequencies(config: ModelConfig) -> tuple[np.ndarray, float]:
    """Returns radians per position (float64 [head_dim / 2]) and the factor on cosine and sine.

    Linear scaling divides every frequency by the factor. YaRN (arXiv 2309.00071, section 3.2)
    leaves pairs that turn more often than ``beta_fast`` within the original context, divides those
    that turn less often than ``beta_slow``, and blends linearly between the two; it scales cosine
    and sine by 0.1 ln(factor) + 1 unless the file names another factor.
    """
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half) / half)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies, 1.0
    if scaling.type == "linear":
        return frequencies / scaling.factor, scaling.attn_factor or 1.0

    def pair_that_turns(n_turns: float) -> float:
        turns_of_first = scaling.original_max_context / (2 * math.pi)
        return half * math.log(turns_of_first / n_turns) / math.log(config.rope_theta)

    low = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(scaling.beta_slow)), config.head_dim - 1)
    kept = 1 - np.clip((np.arange(half) - low) / ((high - low) or 0.001), 0, 1)
    blended = frequencies * kept + frequencies / scaling.factor * (1 - kept)
    return blended, scaling.attn_factor or 0.1 * math.log(scaling.factor) + 1
