"""The Qwen2 network, recorded as a tape: read ``Recorder.walk`` from top to bottom.

What each operation is made of is told in ``edgeqwen.model.recording``.
"""

import numpy as np

from edgeqwen.cache.layout import CacheLayout
from edgeqwen.config import ModelConfig
from edgeqwen.executor import Tape
from edgeqwen.kernels.attention_types import AttentionShape, attention_shape
from edgeqwen.kernels.state import STATE
from edgeqwen.model.buffers import Buffers
from edgeqwen.model.key_biases import KeyBiases
from edgeqwen.model.recording import Recording
from edgeqwen.model.rope_frequencies import rope_frequencies
from edgeqwen.model.weights import Weights
from edgeqwen.simd.isa import Isa


class Recorder:
    """Records the network for one model, instruction set and set of buffers."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        layout: CacheLayout,
        isa: Isa,
        n_threads: int,
    ) -> None:
        self.config, self.weights, self.layout = config, weights, layout
        self.isa, self.n_threads = isa, n_threads
        # The state of the step, and one that counts a single token for the last one's logits.
        self.state, self.last_state = np.zeros(1, STATE), np.zeros(1, STATE)
        self.last_state["n_tokens"] = 1
        self.frequencies, self.rope_factor = rope_frequencies(config)
        self.key_biases = KeyBiases(config, weights, layout, isa)

    def attention_shape(self, one_token: bool) -> AttentionShape:
        """Returns how attention runs in steps of one token, or of many."""
        group = self.config.n_heads // self.config.n_kv_heads
        head_dim, cache_type = self.config.head_dim, self.layout.cache_type
        return attention_shape(self.isa, head_dim, group, one_token, cache_type)

    def record(self, buffers: Buffers, *, one_token: bool, all_logits: bool) -> Tape:
        """Records a step of one token, or of many; the logits of all tokens, or of the last.

        The tape isn't finished: its kernels are still to be compiled.
        """
        return self.walk(Recording(self, buffers, one_token), last_only=not all_logits)

    def walk(self, tape: Recording, *, last_only: bool) -> Tape:
        """Records one operation after the other; ends with the logits of the last token, or all."""
        tape.embed(self.weights.embedding)
        tape.angles()
        for i, layer in enumerate(self.weights.layers):
            tape.norm_and_multiply(layer.attn_norm, layer.qkv, "qkv", layer.qkv_bias)
            tape.attention(i, layer.o_proj)
            tape.multiply(layer.o_proj, "x", accumulate=True)
            tape.feed_forward(layer.ffn_norm, layer.gate_up, layer.down_proj)
            tape.multiply(layer.down_proj, "x", panels="hidden", accumulate=True)
        tape.logits(self.weights.output_norm, self.weights.head, last_only)
        return tape.tape
