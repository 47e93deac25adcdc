"""The activations of a step: one set of buffers for all layers, sized for the largest step."""

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.region import Region
from edgeqwen.config import ModelConfig
from edgeqwen.formats.base import BLOCK_COLUMNS, TILE_ROWS
from edgeqwen.kernels import attention, gemm
from edgeqwen.kernels.attention import UNIT

# Rows of a panel or of attention are padded to at most this many more than there are tokens.
PADDING = 32
PANEL_BYTES = 128  # of one token and block, at most (float formats)


class Buffers:
    """Addresses of float32 activations for steps of up to ``max_tokens`` tokens."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        max_tokens: int,
        max_context: int,
        n_threads: int,
        attention_rows: int,
        n_logits: int,
        screen_bytes: int = 0,
    ) -> None:
        heads = config.n_heads + 2 * config.n_kv_heads
        widest = max(config.hidden_size, config.intermediate_size, config.n_heads * config.head_dim)
        tokens = max_tokens + PADDING
        self.max_tokens = max_tokens
        self.qkv_stride = 4 * heads * config.head_dim
        self.gate_up_stride = 8 * config.intermediate_size
        self.logits_stride = 4 * TILE_ROWS * -(-config.vocab_size // TILE_ROWS)
        # Of each thread: for attention, or for a GEMM.
        self.scratch_bytes = max(
            attention.scratch_bytes(attention_rows, config.head_dim),
            gemm.most_scratch_bytes(tokens),
        )
        units = -(-max_context // UNIT) * config.n_kv_heads
        # Of each thread: one token after a norm, as float32 and as a panel, side by side.
        normed = 4 * config.hidden_size
        self.worker_bytes = -(-(normed + config.hidden_size // 32 * PANEL_BYTES) // 4096) * 4096
        sizes = {
            "x": tokens * config.hidden_size * 4,
            "normed": tokens * config.hidden_size * 4,
            "worker_normed": n_threads * self.worker_bytes,
            "qkv": tokens * self.qkv_stride,
            "attention": tokens * config.n_heads * config.head_dim * 4,
            "gate_up": tokens * self.gate_up_stride,
            "panels": tokens * (widest // BLOCK_COLUMNS) * PANEL_BYTES,
            "hidden": tokens * (config.intermediate_size // BLOCK_COLUMNS) * PANEL_BYTES,
            "angles": tokens * config.head_dim * 4,
            "partials": units * attention_rows * (config.head_dim + 2) * 4,
            "scratch": n_threads * self.scratch_bytes,
            "logits": n_logits * self.logits_stride,
            "screen": screen_bytes,
        }
        self._offsets: dict[str, int] = {}
        total = 0
        for name, size in sizes.items():
            self._offsets[name] = total
            total += -(-size // 4096) * 4096
        self._offsets["worker_panels"] = self._offsets["worker_normed"] + normed
        self._region = Region(total, purpose="the activations")

    def __getitem__(self, name: str) -> int:
        """Returns the address of a buffer."""
        return self._region.address + self._offsets[name]

    def logits(self, n: int, vocab_size: int) -> NDArray[np.float32]:
        """Returns a view float32 [n, vocab_size] of the logits."""
        stride = self.logits_stride
        rows = self._region.view(self._offsets["logits"], n * stride).view(np.float32)
        return rows.reshape(n, stride // 4)[:, :vocab_size]

    def close(self) -> None:
        self._region.close()
