"""The engine: sequences of tokens in, logits out. One step at a time, by one caller at a time."""

import functools
import reprlib
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as TokenSequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache import CacheLayout, Sequence, Store
from edgeqwen.cache.layout import n_segments
from edgeqwen.config import ModelConfig
from edgeqwen.errors import ClosedError, ContextFullError, OptionError
from edgeqwen.executor import Team
from edgeqwen.gguf_file import GgufFile
from edgeqwen.model.observation import Observation
from edgeqwen.model.qwen2 import Recorder
from edgeqwen.model.screening import Screen
from edgeqwen.model.shifting import Shifting
from edgeqwen.model.steps import LOGITS_TOKENS, PREFILL_TOKENS, Kernels, Steps
from edgeqwen.model.unloaded import UnloadedModel
from edgeqwen.model.wanted import Wanted
from edgeqwen.model.weights import Weights
from edgeqwen.model.work import Work, count_work
from edgeqwen.rope_scaling import MAX_CONTEXT
from edgeqwen.sampling.kernels import largest
from edgeqwen.simd.compile import INT
from edgeqwen.simd.isa import current_isa
from edgeqwen.simd.machine_code import give_back_memory
from edgeqwen.text.merge_kernels import kernels as tokenizer_kernels

Progress = Callable[[int, int], None]


class Engine:
    """A model's weights, threads and recorded steps.

    ``n_threads``: by default, the processors that this process may use. ``max_context``: tokens a
    sequence may hold, by default what the model was trained for, or what ``rope_scaling`` makes of
    that (``ModelConfig.with_rope_scaling``). ``cache_type``: how keys and values are kept, one of
    ``kernels.cache_types``. ``full_head``: computes all logits, so that none are screened. The
    weights are packed in the background: the first step waits for them, and ``wait_until_loaded``
    does. Without ``pack``, that begins with ``prepare``, and no step may come before.

    Raises UnsupportedError for a model that can't be run and OptionError for senseless options.
    """

    def __init__(
        self,
        file: GgufFile | UnloadedModel,
        *,
        n_threads: int | None = None,
        max_context: int | None = None,
        cache_type: str = "f16",
        full_head: bool = False,
        rope_scaling: Mapping[str, Any] | None = None,
        pack: bool = True,
    ) -> None:
        self.config = file.config()
        if rope_scaling is not None:
            self.config = self.config.with_rope_scaling(rope_scaling)
        self.max_context = self.config.max_context if max_context is None else max_context
        if self.max_context < 1:
            raise OptionError(f"max_context is {max_context}; it must be at least 1")
        if self.max_context > MAX_CONTEXT:
            raise OptionError(f"max_context is {max_context}; it can't be more than {MAX_CONTEXT}")
        self._layout = CacheLayout.of(self.config, cache_type)
        self._lock = threading.Lock()
        self._team = Team(n_threads)
        # A late thread may still look at the last tape: also for an engine that nobody closed,
        # the threads must end before its memory does.
        weakref.finalize(self, self._team.close)
        self.n_threads = self._team.n_threads
        self.isa = current_isa()
        self._weights = Weights(file, self.config, full_head=full_head)
        self._screen = Screen(self._weights.head, full_head=full_head)
        if pack:
            self._weights.start_packing(self._team)
        self._recorder = Recorder(
            self.config, self._weights, self._layout, self.isa, self.n_threads
        )
        self._shifting = Shifting(self._recorder)
        self._steps = Steps(self._recorder, self._weights, self._screen, self.max_context)
        self._closed = False

    @property
    def work(self) -> Work:
        """What a token costs this model, for comparisons with what the machine can do."""
        return count_work(self.config, self._weights, self._layout)

    @property
    def biases_apart(self) -> NDArray[np.float32]:
        """What of the biases of keys the cache doesn't hold; chosen when the first token is read.

        float32 [n_layers, n_kv_heads, head_dim].
        """
        return self._recorder.key_biases.apart

    @property
    def weight_bytes(self) -> int:
        """The bytes of memory that the matrices take."""
        return self._weights.tile_bytes

    def cache_bytes(self, n_tokens: int) -> int:
        """Returns the bytes that the keys and values of so many tokens take at most.

        And what of large biases is beside them, where the cache type keeps these apart.
        """
        beside = self._recorder.key_biases.most_bytes
        return n_segments(n_tokens) * (self._layout.segment_bytes + beside)

    def prepare(self, progress: Progress | None = None) -> None:
        """Loads or compiles all kernels, and records the steps of reading and generating.

        Begins to pack the weights as soon as it can, unless that was begun. ``progress(done,
        total)`` counts kernels.
        """
        # The kernels of the full head are among those of prefill.
        steps = ("prefill", "screened" if self._screen.exists else "decode")
        packing = self._weights.kernels()
        kernels = packing | self.kernels(steps)
        for i, compiled in enumerate(kernels.values()):
            if i == len(packing) and not self._weights.is_begun and not self._weights.is_in_file:
                self._weights.start_packing(self._team)
            compiled()
            if progress is not None:
                progress(i + 1, len(kernels))
        for name in steps:
            self._steps.tape(name)
        give_back_memory()
        if not self._weights.is_begun:
            # A packed file's pages come so fast that they needn't meet those of LLVM in memory.
            self._weights.start_packing(self._team)

    def wait_until_loaded(self, progress: Progress | None = None) -> None:
        """Returns when the weights are packed; ``progress(done, total)`` gets bytes of the file.

        Raises ClosedError if the engine was closed meanwhile.
        """
        self._weights.wait(progress)

    def new_sequence(self, store: Store | None = None) -> Sequence:
        """Returns an empty sequence in memory, or one that goes on with what a store holds.

        It holds up to ``max_context`` tokens.
        """
        self._check_open()
        return Sequence(self._layout, store)

    @property
    def layout(self) -> CacheLayout:
        """How keys and values lie in this model's sequences."""
        return self._layout

    def prefill(
        self,
        sequence: Sequence,
        tokens: TokenSequence[int],
        *,
        cancelled: Callable[[], bool] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Appends tokens to a sequence; returns float32 [vocab_size] logits after the last.

        The logits are a view, valid until the next step. ``progress(done, total)`` counts tokens;
        when ``cancelled()`` the sequence holds what was read so far, and the logits mean nothing.
        Raises ContextFullError, and OptionError for no tokens or ids outside the vocabulary.
        """
        ids = self._checked(sequence, tokens)
        for first in range(0, len(ids), PREFILL_TOKENS):
            part = ids[first : first + PREFILL_TOKENS]
            self._step("decode" if len(part) == 1 else "prefill", sequence, part)
            if progress is not None:
                progress(first + len(part), len(ids))
            if cancelled is not None and cancelled():
                break
        return self._last_logits("decode" if len(part) == 1 else "prefill")

    def decode(
        self, sequence: Sequence, token: int, wanted: Wanted | None = None
    ) -> NDArray[np.float32]:
        """Appends one token; returns the logits after it, like ``prefill``.

        ``wanted``: what of them is needed. The others may then be the lowest finite float32; those
        that aren't are what they are without ``wanted``.
        """
        name = "screened" if self._screen.takes(wanted) else "decode"
        self._step(name, sequence, self._checked(sequence, [token]), wanted=wanted)
        return self._last_logits(name)

    def logits(self, sequence: Sequence, tokens: TokenSequence[int]) -> NDArray[np.float32]:
        """Appends tokens; returns the logits after each: float32 [len(tokens), vocab_size]."""
        ids = self._checked(sequence, tokens)
        result = np.empty((len(ids), self.config.vocab_size), np.float32)
        for first in range(0, len(ids), LOGITS_TOKENS):
            part = ids[first : first + LOGITS_TOKENS]
            self._step("logits", sequence, part)
            _, buffers = self._steps.tape("logits")
            result[first : first + len(part)] = buffers.logits(len(part), self.config.vocab_size)
        return result

    def shift(self, sequence: Sequence, keep: int, n_dropped: int) -> None:
        """Forgets ``n_dropped`` tokens after the first ``keep``; what comes after moves there.

        Nothing is computed anew: the keys of what moves are rotated to their new positions, so it
        still knows what was forgotten while it was read. Each shift rounds them once more to the
        cache's type. Raises OptionError for tokens that the sequence doesn't hold.
        """
        self._check_mine(sequence)
        n_tokens = sequence.n_tokens
        if keep < 0 or n_dropped < 0 or keep + n_dropped > n_tokens:
            raise OptionError(
                f"can't forget {n_dropped} tokens after {keep}: the sequence holds {n_tokens}"
            )
        with self._lock:
            self._check_open()
            if 0 < n_dropped < n_tokens - keep:
                if not self._shifting.tape.is_finished:
                    self._shifting.tape.finish()
                tables = sequence.move_to(keep, n_dropped)
                self._shifting.ask(*tables, keep, n_dropped, n_tokens)
                self._team.run(self._shifting.tape, 1, n_tokens)
                sequence.moved(keep, n_dropped)
            else:
                sequence.truncate(n_tokens - n_dropped)

    def new_observation(self) -> Observation:
        """Returns sums of zero for ``observe``."""
        return self._steps.new_observation()

    def observe(
        self, sequence: Sequence, tokens: TokenSequence[int], observation: Observation
    ) -> None:
        """Appends tokens; adds the squares of what each matrix is multiplied by to the sums.

        The number of threads doesn't change the sums. Raises what ``prefill`` raises.
        """
        ids = self._checked(sequence, tokens)
        if not self._steps.observes(observation):
            raise OptionError("this observation was made by another model")
        for first in range(0, len(ids), PREFILL_TOKENS):
            self._step("observe", sequence, ids[first : first + PREFILL_TOKENS], observation)

    def close(self) -> None:
        """Ends the threads and frees the weights; idempotent. Sequences are closed alone."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._weights.stop_packing()
            self._team.close()
            self._steps.close()
            self._recorder.key_biases.close()
            self._weights.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the model was closed; load it again to use it")

    def _check_mine(self, sequence: Sequence) -> None:
        self._check_open()
        if sequence.layout != self._layout:
            raise OptionError("this sequence was made by another model, or with another cache type")

    def _checked(self, sequence: Sequence, tokens: TokenSequence[int]) -> NDArray[np.int32]:
        """Returns the tokens as int32, each within the vocabulary, all within the context."""
        self._check_mine(sequence)
        ids = _integers(tokens)
        if len(ids) == 0:
            raise OptionError("no tokens: a step needs at least one")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            bad = int(ids[(ids < 0) | (ids >= self.config.vocab_size)][0])
            raise OptionError(
                f"token {bad} is outside the vocabulary of {self.config.vocab_size} tokens"
            )
        if sequence.n_tokens + len(ids) > self.max_context:
            raise ContextFullError(
                f"{len(ids)} more tokens after {sequence.n_tokens} don't fit into the context of "
                f"{self.max_context}; load the model with a larger max_context (it was trained for "
                f"{self.config.max_context})"
            )
        return ids.astype(np.int32)

    def _step(
        self,
        name: str,
        sequence: Sequence,
        tokens: NDArray[np.int32],
        observation: Observation | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        with self._lock:
            self._check_open()
            tape, buffers = self._steps.tape(name)
            self._weights.wait()
            if name == "screened" and wanted is not None:
                self._screen.ask(wanted)
            if observation is not None:
                self._steps.observe(observation)
            state = self._recorder.state
            n_past = sequence.n_tokens
            segments = sequence.reserve(n_past + len(tokens))
            state["n_tokens"], state["n_past"] = len(tokens), n_past
            state["tokens"], state["segments"] = tokens.ctypes.data, segments
            state["rotations"] = self._recorder.key_biases.rotations(n_past + len(tokens))
            self._team.run(tape, len(tokens), n_past + len(tokens))
            sequence.extend(tokens.tolist())
            if name == "screened":
                self._screen.learn(buffers["screen"])
            if observation is not None:
                observation.n_tokens += len(tokens)

    def _last_logits(self, name: str) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self._steps.tape(name)[1].logits(1, self.config.vocab_size)[0]
        return row

    def kernels(self, steps: Iterable[str] | None = None) -> Kernels:
        """Returns all that loading and running this model compiles: by name, what compiles it.

        ``steps``: only so much as these kinds of steps need.
        """
        kernels = tokenizer_kernels() | self._weights.kernels() | self._team.kernels()
        kernels |= self._recorder.key_biases.kernels()
        kernels["sampling", "largest"] = functools.partial(largest.address, INT)
        if steps is None:
            kernels.update(self._shifting.tape.kernels())
            steps = self._steps.of_running
        return kernels | self._steps.kernels(steps)


def token_bytes(config: ModelConfig, cache_type: str = "f16") -> int:
    """Returns the bytes that a token's keys and values take."""
    return CacheLayout.of(config, cache_type).bytes_per_token


def _integers(tokens: TokenSequence[int]) -> NDArray[Any]:
    try:
        ids = np.asarray(tokens)
    except ValueError:  # lists of different lengths
        ids = np.zeros(())
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise OptionError(f"tokens must be integers, not {reprlib.repr(tokens)}")
    return ids
