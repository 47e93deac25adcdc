"""A conversation: its messages, and the KV cache that spares reading them again."""

import contextlib
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from edgeqwen.context_shift import Forgotten, Turns, common_prefix
from edgeqwen.generation import Answer, Generation, generate_pieces
from edgeqwen.options import Request, SamplingKeywords, sampling_options, text_argument
from edgeqwen.sampling import SamplingOptions
from edgeqwen.shared_engine import SharedEngine

if TYPE_CHECKING:
    from edgeqwen.cache import Sequence as KvSequence
    from edgeqwen.text.chat_template import ChatTemplate
    from edgeqwen.text.tokenizer import Tokenizer


class Chat:
    """A conversation with a model; ``Model.chat`` makes it.

    ``messages`` is a plain list of {"role": ..., "content": ...} that may be read and edited
    between answers; the next ``send`` reads again only what differs from the KV cache.

    A turn enters ``messages`` with the first piece of its answer and grows with it. An answer that
    is broken off (``cancel``, ``break``, Ctrl-C, an error) stays as far as it was shown; a turn
    that ends before its first piece leaves no trace.

    With ``context_shift``, a conversation that fills the context goes on without its oldest turns
    after the first; ``messages`` stays complete.
    """

    def __init__(
        self,
        shared: SharedEngine,
        tokenizer: "Tokenizer",
        template: "ChatTemplate",
        sampling: SamplingOptions,
        system: str | None,
        *,
        context_shift: bool = False,
    ) -> None:
        self._shared = shared
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._memory = _Memory(shared)
        self._context_shift = context_shift
        self._turns = Turns(
            lambda messages: template.encode(tokenizer, messages), shared.engine.max_context
        )
        self._running: weakref.ref[Generation] | None = None
        self._lock = threading.Lock()
        self.messages: list[dict[str, Any]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": text_argument(system, "system")})

    @property
    def n_forgotten(self) -> int:
        """How many turns (a question and its answer) the model doesn't see any more."""
        return self._turns.n_forgotten(self.messages)

    def send(
        self,
        text: str,
        *,
        max_tokens: int | None = None,
        stop: str | Iterable[str] = (),
        progress: Callable[[int, int], None] | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Generation:
        """Returns the answer to a message; iterate over it for the pieces of its text.

        Options are those of ``Model.generate``; the ones given to ``Model.chat`` are the defaults.
        An answer of this chat that still runs, in whatever thread, is ended first.
        Raises ContextFullError when the conversation has outgrown the context, TemplateError when
        the model's chat template can't render it, OptionError and ClosedError.
        """
        with self._lock:
            self._shared.check_open()
            self._end_running()
            message = {"role": "user", "content": text_argument(text, "text")}
            messages = [*self.messages, message]
            prompt, forgotten = self._turns.prompt(messages), None
            max_context = self._shared.engine.max_context
            if self._context_shift and len(prompt) >= max_context:
                forgotten = self._turns.to_forget(messages, len(prompt))
                prompt = forgotten.after if forgotten is not None else prompt
            request = Request.checked(
                prompt,
                sampling_options(self._sampling, sampling),
                max_context=max_context,
                max_tokens=max_tokens,
                stop=stop,
                progress=progress,
                too_long=self._advice(),
            )
            answer = Answer(len(prompt))
            turns = self._turns if self._context_shift else None
            source = _Source(self._memory, messages, turns, forgotten)
            pieces = generate_pieces(self._shared, self._tokenizer, request, source, answer)
            generation = Generation(answer, self._remember(message, pieces, answer))
            self._running = weakref.ref(generation)
            return generation

    def close(self) -> None:
        """Ends a running answer and frees the KV cache; a later ``send`` starts a new one."""
        with self._lock:
            self._end_running()
            self._memory.drop()

    def _advice(self) -> str:
        """Returns what can be done about a conversation that is too long, beside the usual."""
        if not any(message.get("role") == "user" for message in self.messages):
            return ""
        if self._context_shift:
            return "; no more turns can be forgotten"
        return ", or let the oldest turns be forgotten (context_shift, --context-shift)"

    def _end_running(self) -> None:
        generation = self._running() if self._running is not None else None
        if generation is not None:
            generation.close()
        self._running = None

    def _remember(
        self, message: dict[str, Any], pieces: Generator[str, None, None], answer: Answer
    ) -> Generator[str, None, None]:
        """Yields the pieces and keeps the turn in ``messages`` as far as it was yielded."""
        reply = {"role": "assistant", "content": ""}
        with contextlib.closing(pieces):
            for piece in pieces:
                if not reply["content"]:
                    self.messages += [message, reply]
                reply["content"] += piece
                yield piece
        if not reply["content"] and answer.finish_reason != "cancelled":
            self.messages += [message, reply]


class _Memory:
    """The KV sequence of a conversation, cut back to what a new prompt shares with it."""

    def __init__(self, shared: SharedEngine) -> None:
        self._shared = shared
        self._sequence: KvSequence | None = None

    def acquire(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        sequence = self._sequence
        if sequence is None or not self._shared.holds(sequence):
            sequence = self._sequence = self._shared.new_sequence()
        # The last token is read again even if it is there: its logits are what is wanted.
        n_shared = common_prefix(sequence.tokens, prompt[:-1])
        sequence.truncate(n_shared)
        return sequence, n_shared

    def forget(self, forgotten: Forgotten) -> None:
        """Forgets turns that the prompt has lost, so that those after them needn't be read again.

        Nothing of the kind is done where the sequence, or the prompt, is another one than it was.
        """
        place, sequence = forgotten.place(), self._sequence
        if place is None or sequence is None or not self._shared.holds(sequence):
            return
        n_known = common_prefix(sequence.tokens, forgotten.before)
        if n_known > sum(place):
            self._shared.shift(sequence, *place)

    def shift(self, sequence: "KvSequence", first: int, n: int) -> None:
        self._shared.shift(sequence, first, n)

    def drop(self) -> None:
        if self._sequence is not None:
            self._shared.release(self._sequence)
            self._sequence = None


class _Source:
    """The conversation's memory for one answer; forgets turns during it where there are some."""

    def __init__(
        self,
        memory: _Memory,
        messages: Sequence[dict[str, Any]],
        turns: Turns | None,
        forgotten: Forgotten | None,
    ) -> None:
        self._memory, self._messages = memory, messages
        self._turns, self._forgotten = turns, forgotten

    def acquire(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        if self._turns is not None and self._forgotten is not None:
            # Not before: an answer that nobody asks for a piece of changes nothing.
            self._memory.forget(self._forgotten)
            self._turns.forget(self._forgotten)
        return self._memory.acquire(prompt)

    def release(self, sequence: "KvSequence") -> None:
        """Keeps the sequence for the next turn."""

    def make_room(self, sequence: "KvSequence") -> bool:
        if self._turns is None:
            return False
        forgotten = self._turns.to_forget(self._messages, sequence.n_tokens)
        place = forgotten.place() if forgotten is not None else None
        if forgotten is None or place is None:
            return False
        self._memory.shift(sequence, *place)
        self._turns.forget(forgotten)
        return True
