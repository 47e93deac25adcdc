"""A text being generated: pieces as they come, and afterwards what it took."""

import inspect
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from edgeqwen.options import Request
from edgeqwen.sampling import Sampler
from edgeqwen.shared_engine import SharedEngine
from edgeqwen.stop_strings import StopStrings

if TYPE_CHECKING:
    from edgeqwen.cache import Sequence as KvSequence
    from edgeqwen.text.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "eos", "cancelled"]


@dataclass(frozen=True, slots=True)
class GenerationStats:
    """What a generation took. Times are in seconds and leave out what the caller did between."""

    n_prompt: int
    """Tokens of the prompt, the reused ones included."""
    n_reused: int
    """Tokens of the prompt that were still in the KV cache, and so cost nothing."""
    n_generated: int
    prefill_s: float
    """Reading the prompt and choosing the first token."""
    decode_s: float
    """All later tokens together."""
    n_decoded: int
    """Steps that ``decode_s`` covers: one less than the tokens chosen."""
    first_token_s: float | None
    """From the first iteration until the first token; None when there was none."""

    @property
    def prefill_tps(self) -> float | None:
        """Tokens of the prompt read per second, without the reused ones."""
        return (self.n_prompt - self.n_reused) / self.prefill_s if self.prefill_s > 0 else None

    @property
    def decode_tps(self) -> float | None:
        """Tokens generated per second, without the first; None when there was no second one."""
        return self.n_decoded / self.decode_s if self.decode_s > 0 else None


class SequenceSource(Protocol):
    """Where a generation gets its KV cache from, and what becomes of it."""

    def acquire(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        """Returns a sequence and how many tokens of the prompt it holds already (not all)."""

    def release(self, sequence: "KvSequence") -> None: ...

    def make_room(self, sequence: "KvSequence") -> bool:
        """Forgets some tokens of a sequence that fills the context; False where none may be."""


class Answer:
    """The state that the running generator writes and ``Generation`` shows."""

    def __init__(self, n_prompt: int) -> None:
        self.text: list[str] = []
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.cancelled = threading.Event()
        self.started = False
        self.began = 0.0
        self.n_prompt = n_prompt
        self.n_reused = 0
        self.n_decoded = 0
        self.prefill_s = 0.0
        self.decode_s = 0.0
        self.first_token_s: float | None = None

    def begin(self) -> None:
        self.started = True
        self.began = time.perf_counter()

    def stats(self) -> GenerationStats:
        return GenerationStats(
            n_prompt=self.n_prompt,
            n_reused=self.n_reused,
            n_generated=len(self.tokens),
            prefill_s=self.prefill_s,
            decode_s=self.decode_s,
            n_decoded=self.n_decoded,
            first_token_s=self.first_token_s,
        )


class Generation(Iterator[str]):
    """Text that is generated while it is iterated over, piece by piece.

    A piece is one character at least, never a part of one, and never belongs to a stop string.
    ``text``, ``tokens`` and ``stats`` tell what there is so far; asked for before the iteration
    has begun, they run the generation to its end first.
    """

    # The generator refers to the answer and not to this object: without a cycle, a loop that is
    # left early frees the KV cache at once.
    def __init__(self, answer: Answer, pieces: Generator[str, None, None]) -> None:
        self._answer = answer
        self._pieces = pieces
        self._lock = threading.RLock()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._lock:
            return next(self._pieces)

    def _run_if_not_started(self) -> Answer:
        if not self._answer.started:
            for _ in self:
                pass
        return self._answer

    @property
    def text(self) -> str:
        return "".join(self._run_if_not_started().text)

    @property
    def tokens(self) -> list[int]:
        """The ids generated, without the end-of-generation id."""
        return list(self._run_if_not_started().tokens)

    @property
    def stats(self) -> GenerationStats:
        return self._run_if_not_started().stats()

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it goes on or before it has begun.

        "eos": the model ended its answer; "stop": a stop string; "length": ``max_tokens``, or
        the context is full; "cancelled": ``cancel``, ``close`` or an error.
        """
        return self._answer.finish_reason

    def cancel(self) -> None:
        """Ends the generation before its next token. May be called from any thread."""
        self._answer.cancelled.set()

    def close(self) -> None:
        """Ends the generation here and frees its KV cache. Idempotent.

        Waits for the step under way if another thread iterates.
        """
        self.cancel()
        with self._lock:
            if not self._answer.started:
                self._answer.begin()
                self._answer.finish_reason = "cancelled"
            # A signal handler or a callback may come here from inside the running step, which
            # can't be closed then and ends by itself.
            if inspect.getgeneratorstate(self._pieces) != inspect.GEN_RUNNING:
                self._pieces.close()

    def __repr__(self) -> str:
        state = self.finish_reason or ("running" if self._answer.started else "not started")
        return f"<Generation: {len(self._answer.tokens)} tokens, {state}>"


def generate_pieces(
    shared: SharedEngine,
    tokenizer: "Tokenizer",
    request: Request,
    source: SequenceSource,
    answer: Answer,
) -> Generator[str, None, None]:
    """Reads the prompt, then chooses token after token; yields the text and fills in ``answer``."""
    answer.begin()
    decoder = tokenizer.stream(skip_special=True)
    stops = StopStrings(request.stop)
    sequence = None
    try:
        shared.check_open()
        if not answer.cancelled.is_set():
            sequence, answer.n_reused = source.acquire(request.prompt)
            for token in _tokens(shared, request, source, sequence, answer):
                if token in tokenizer.eos_ids:
                    answer.finish_reason = "eos"
                    break
                answer.tokens.append(token)
                if piece := stops.push(decoder.push(token)):
                    answer.text.append(piece)
                    yield piece
                if stops.found is not None:
                    answer.finish_reason = "stop"
                    break
        rest = stops.push(decoder.flush()) + stops.flush()
        if stops.found is not None:
            answer.finish_reason = "stop"
        if rest:
            answer.text.append(rest)
            yield rest
    finally:
        answer.finish_reason = answer.finish_reason or "cancelled"
        if sequence is not None:
            source.release(sequence)


def _tokens(
    shared: SharedEngine,
    request: Request,
    source: SequenceSource,
    sequence: "KvSequence",
    answer: Answer,
) -> Iterator[int]:
    """Yields the tokens chosen until the length is reached or somebody cancels."""
    engine = shared.engine
    cancelled = answer.cancelled.is_set
    sampler = Sampler(request.sampling, engine.config.vocab_size, prompt=request.prompt)
    began = time.perf_counter()
    token = shared.prefill(
        sequence,
        request.prompt[answer.n_reused :],
        sampler,
        cancelled=cancelled,
        progress=request.progress,
    )
    answer.prefill_s = time.perf_counter() - began
    if token is None:
        return
    answer.first_token_s = time.perf_counter() - answer.began
    yield token
    while not cancelled():
        # The token just chosen is not in the cache yet and needs a place there to go on.
        n_chosen = answer.n_decoded + 1
        began = time.perf_counter()
        is_full = sequence.n_tokens >= engine.max_context
        if n_chosen == request.max_tokens or (is_full and not source.make_room(sequence)):
            answer.finish_reason = "length"
            return
        token = shared.decode(sequence, token, sampler)
        answer.decode_s += time.perf_counter() - began
        answer.n_decoded += 1
        yield token
