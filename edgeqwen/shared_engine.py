"""One engine that several conversations and threads share: a step at a time, and safe to close."""

import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from edgeqwen.errors import ClosedError, EdgeqwenError

if TYPE_CHECKING:
    from edgeqwen.cache import Sequence as KvSequence
    from edgeqwen.cache import Store
    from edgeqwen.engine import Engine
    from edgeqwen.sampling import Sampler


class SharedEngine:
    """Runs the steps of any number of generations on one engine.

    Threads take turns step by step (a prompt, or one token), so that two generations in two threads
    both go on, each at half the speed, and one that nobody iterates holds up no other.
    Every method raises ``ClosedError`` after ``close``.
    """

    def __init__(self, engine: "Engine", *, name: str) -> None:
        self.engine = engine
        self.name = name
        # Weak: the cache of a conversation that is forgotten without being closed goes with it.
        self._sequences: weakref.WeakValueDictionary[int, KvSequence] = (
            weakref.WeakValueDictionary()
        )
        self._closed = False
        self._turn = threading.RLock()  # which knows its owner, and is taken once
        # Whoever wants a turn waits here first. Without it, the thread that has just finished
        # a step would nearly always get the next turn too, and the others would starve.
        self._queue = threading.Lock()
        self._at_work: set[int] = set()  # threads; one at most has the turn

    @property
    def closed(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.name} was closed: load the model again to use it")

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        thread = threading.get_ident()
        if thread in self._at_work:
            # Waiting for oneself would last forever.
            raise EdgeqwenError(
                f"{self.name} is in the middle of a step: a progress callback or a signal handler "
                "can't use or close it; cancel the generation there, and go on after it"
            )
        try:
            with self._queue:
                self._turn.acquire()
            self._at_work.add(thread)
            yield
        finally:
            # Ctrl-C may come after any call: only the lock knows whether this thread has it.
            try:
                self._turn.release()
            except RuntimeError:
                pass
            finally:
                self._at_work.discard(thread)

    def new_sequence(self, store: "Store | None" = None) -> "KvSequence":
        """Returns a sequence, which goes on with what a store holds."""
        with self._my_turn():
            self.check_open()
            sequence = self.engine.new_sequence(store)
            self._sequences[id(sequence)] = sequence
            return sequence

    def fork(self, sequence: "KvSequence") -> "KvSequence":
        """Returns a copy of a sequence in memory."""
        with self._my_turn():
            self.check_open()
            copy = sequence.fork()
            self._sequences[id(copy)] = copy
            return copy

    def release(self, sequence: "KvSequence") -> None:
        """Frees a sequence's KV cache. It may have been freed already, by ``close`` for one."""
        if self._sequences.pop(id(sequence), None) is not None:
            sequence.close()

    def prefill(
        self,
        sequence: "KvSequence",
        tokens: Sequence[int],
        sampler: "Sampler",
        *,
        cancelled: Callable[[], bool],
        progress: Callable[[int, int], None] | None,
    ) -> int | None:
        """Appends ``tokens`` and samples the token after them; None when it was cancelled."""
        with self._my_turn(), self._trusted(sequence):
            self.check_open()
            logits = self.engine.prefill(sequence, tokens, cancelled=cancelled, progress=progress)
            return None if cancelled() else sampler.sample(logits)

    def decode(self, sequence: "KvSequence", token: int, sampler: "Sampler") -> int:
        """Appends one token and samples the next one."""
        with self._my_turn(), self._trusted(sequence):
            self.check_open()
            return sampler.sample(self.engine.decode(sequence, token, sampler.wanted))

    def shift(self, sequence: "KvSequence", keep: int, n_dropped: int) -> None:
        """Forgets tokens in the middle of a sequence."""
        with self._my_turn(), self._trusted(sequence):
            self.check_open()
            self.engine.shift(sequence, keep, n_dropped)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Returns float32 [len(tokens), vocab_size]."""
        with self._my_turn():
            self.check_open()
            sequence = self.engine.new_sequence()
            try:
                return self.engine.logits(sequence, tokens)
            finally:
                sequence.close()

    def logits_in_parts(
        self,
        tokens: Sequence[int],
        first: int,
        *,
        size: int,
        cancelled: Callable[[], bool] | None,
    ) -> Generator[np.ndarray, None, None]:
        """Yields the logits after each of ``tokens[first:]``: float32 [at most size, vocab_size].

        Each part is a turn of its own. Ends early when ``cancelled()``.
        """
        sequence = self.new_sequence()
        try:
            if first:
                with self._my_turn():
                    self.check_open()
                    self.engine.prefill(sequence, tokens[:first], cancelled=cancelled)
                if sequence.n_tokens < first:
                    return
            for begin in range(first, len(tokens), size):
                if begin and cancelled is not None and cancelled():
                    return
                with self._my_turn():
                    self.check_open()
                    logits = self.engine.logits(sequence, tokens[begin : begin + size])
                yield logits
        finally:
            self.release(sequence)

    @contextmanager
    def at_work(self, sequence: "KvSequence") -> Iterator[None]:
        """Between the steps, does something else with a sequence, which is freed if it fails."""
        with self._my_turn(), self._trusted(sequence):
            self.check_open()
            yield

    @contextmanager
    def _trusted(self, sequence: "KvSequence") -> Iterator[None]:
        """Frees a sequence whose step was broken off, for nobody knows what its cache holds.

        A session's file holds what was committed before, and can be opened again.
        """
        try:
            yield
        except BaseException:
            if self._sequences.pop(id(sequence), None) is not None:
                sequence.abandon()
            raise

    def holds(self, sequence: "KvSequence") -> bool:
        """Tells whether the sequence can still be used."""
        return id(sequence) in self._sequences

    def close(self) -> None:
        """Waits for the step under way, then frees every KV cache and the engine. Idempotent."""
        with self._my_turn():
            if self._closed:
                return
            self._closed = True
            # All of them, whatever the disk says of one.
            with ExitStack() as stack:
                stack.callback(self.engine.close)
                while self._sequences:
                    stack.callback(self._sequences.popitem()[1].close)
