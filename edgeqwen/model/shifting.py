"""Forgetting tokens in the middle of a sequence: the step that moves what comes after them."""

import numpy as np

from edgeqwen.executor import Tape
from edgeqwen.kernels.shift import MOVE, SHIFT, shift
from edgeqwen.model.qwen2 import Recorder


class Shifting:
    """The step for one model, and what it is told each time. ``tape`` isn't finished."""

    def __init__(self, recorder: Recorder) -> None:
        config, layout = recorder.config, recorder.layout
        self._frequencies = recorder.frequencies.astype(np.float64)
        self._move = np.zeros(1, MOVE)
        self._turn = np.zeros(config.head_dim, np.float32)
        self._scratch = np.zeros((recorder.n_threads, 2 * config.head_dim), np.float32)
        self.tape = Tape()
        self.tape.add(
            shift,
            recorder.attention_shape(one_token=True),
            SHIFT,
            {
                "move": self._move.ctypes.data,
                "turn": self._turn.ctypes.data,
                "n_kv_heads": config.n_kv_heads,
                "layer_bytes": layout.layer_bytes,
                "head_bytes": layout.head_bytes,
                "v_offset": layout.v_offset,
                "scratch": self._scratch.ctypes.data,
                "scratch_bytes": self._scratch.strides[0],
            },
            chunks=config.n_layers * config.n_kv_heads,
        )

    def ask(self, segments: int, targets: int, keep: int, n_dropped: int, n_tokens: int) -> None:
        """Says what the next step does to a sequence of ``n_tokens``, by two tables of segments."""
        self._move[0] = (segments, targets, keep, n_tokens, n_dropped)
        # In double precision: a distance of 100,000 positions is as many turns of 1 radian.
        angles = -n_dropped * self._frequencies
        self._turn[:] = np.concatenate([np.cos(angles), np.sin(angles)])
