"""A conversation: its messages, and the KV cache that spares reading them again."""

import contextlib
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

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
    """

    def __init__(
        self,
        shared: SharedEngine,
        tokenizer: "Tokenizer",
        template: "ChatTemplate",
        sampling: SamplingOptions,
        system: str | None,
    ) -> None:
        self._shared = shared
        self._tokenizer = tokenizer
        self._template = template
        self._sampling = sampling
        self._memory = _Memory(shared)
        self._running: weakref.ref[Generation] | None = None
        self._lock = threading.Lock()
        self.messages: list[dict[str, Any]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": text_argument(system, "system")})

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
            prompt = self._template.encode(self._tokenizer, [*self.messages, message])
            request = Request.checked(
                prompt,
                sampling_options(self._sampling, sampling),
                max_context=self._shared.engine.max_context,
                max_tokens=max_tokens,
                stop=stop,
                progress=progress,
            )
            answer = Answer(len(prompt))
            pieces = generate_pieces(self._shared, self._tokenizer, request, self._memory, answer)
            generation = Generation(answer, self._remember(message, pieces, answer))
            self._running = weakref.ref(generation)
            return generation

    def close(self) -> None:
        """Ends a running answer and frees the KV cache; a later ``send`` starts a new one."""
        with self._lock:
            self._end_running()
            self._memory.drop()

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
        n_shared = _common_prefix(sequence.tokens, prompt[:-1])
        sequence.truncate(n_shared)
        return sequence, n_shared

    def release(self, sequence: "KvSequence") -> None:
        """Keeps the sequence for the next turn."""

    def drop(self) -> None:
        if self._sequence is not None:
            self._shared.release(self._sequence)
            self._sequence = None


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
