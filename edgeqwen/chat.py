"""A conversation: its messages, its answers, and how they are taken back and changed."""

import contextlib
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from edgeqwen.answer_memory import AnswerMemory
from edgeqwen.chat_memory import ChatMemory
from edgeqwen.context_shift import Turns
from edgeqwen.errors import EdgeqwenError, OptionError
from edgeqwen.generation import Answer, Generation, generate_pieces
from edgeqwen.options import Request, SamplingKeywords, sampling_options, text_argument
from edgeqwen.sampling import SamplingOptions
from edgeqwen.shared_engine import SharedEngine

if TYPE_CHECKING:
    from edgeqwen.text.chat_template import ChatTemplate
    from edgeqwen.text.tokenizer import Tokenizer


class AnswerKeywords(SamplingKeywords, total=False):
    """What may be said of one answer: see ``Model.generate``."""

    max_tokens: int | None
    stop: str | Iterable[str]
    progress: Callable[[int, int], None] | None


class Chat:
    """A conversation with a model; ``Model.chat`` makes it.

    ``messages`` is a plain list of {"role": ..., "content": ...} that may be read and edited
    between answers; the next ``send`` reads again only what differs from the KV cache.

    A turn enters ``messages`` with the first piece of its answer and grows with it. An answer that
    is broken off (``cancel``, ``break``, Ctrl-C, an error) stays as far as it was shown; a turn
    that ends before its first piece leaves no trace.

    Of a chat with a session, the file holds the messages and the KV cache: what was said before a
    failure, also in the middle of an answer, is there when it is opened again.
    With ``context_shift``, a conversation that fills the context goes on without its oldest turns
    after the first; ``messages`` stays complete.
    """

    def __init__(
        self,
        shared: SharedEngine,
        tokenizer: "Tokenizer",
        template: "ChatTemplate",
        sampling: SamplingOptions,
        memory: ChatMemory,
        messages: list[dict[str, Any]],
        *,
        first_kept: int = 0,
        context_shift: bool = False,
    ) -> None:
        """``first_kept``: the first message after turns that were forgotten; 0: none were."""
        self._shared = shared
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._template = template
        self._memory = memory
        self._context_shift = context_shift
        self._turns = Turns(
            lambda messages: template.encode(tokenizer, messages), shared.engine.max_context
        )
        self._turns.forget_before(messages[first_kept] if first_kept else None)
        memory.turns = self._turns
        self._running: weakref.ref[Generation] | None = None
        self._lock = threading.Lock()
        self.messages = messages

    @property
    def session(self) -> Path | None:
        """The file that the conversation is kept in, if it is."""
        return self._memory.path

    @property
    def n_forgotten(self) -> int:
        """How many turns (a question and its answer) the model doesn't see any more."""
        return self._turns.n_forgotten(self.messages)

    def send(self, text: str, **options: Unpack[AnswerKeywords]) -> Generation:
        """Returns the answer to a message; iterate over it for the pieces of its text.

        Options are those of ``Model.generate``; the ones given to ``Model.chat`` are the defaults.
        An answer of this chat that still runs, in whatever thread, is ended first.
        Raises ContextFullError when the conversation has outgrown the context, TemplateError when
        the model's chat template can't render it, OptionError and ClosedError; iterating over a
        session's answer raises DiskError when the disk is full.
        """
        message = {"role": "user", "content": text_argument(text, "text")}
        return self._answer(message, None, options)

    def regenerate(self, **options: Unpack[AnswerKeywords]) -> Generation:
        """Returns another answer to the last message, in the place of the one there is.

        Like ``send``; only the answer is computed. Raises OptionError where nobody asked anything.
        """
        place = next(
            (i for i, m in reversed([*enumerate(self.messages)]) if m["role"] == "user"), None
        )
        if place is None:
            raise OptionError("there is no message to answer; send one first")
        return self._answer(self.messages[place], place, options)

    def edit(self, index: int, text: str, **options: Unpack[AnswerKeywords]) -> Generation:
        """Returns the answer to another text of ``messages[index]``, a message of the user.

        What came after it is forgotten; what came before isn't read again. Like ``send``. Raises
        OptionError for an index that is no message of the user.
        """
        roles = [message["role"] for message in self.messages]
        if not -len(roles) <= index < len(roles) or roles[index] != "user":
            users = [i for i, role in enumerate(roles) if role == "user"]
            raise OptionError(
                f"messages[{index}] is no message of the user: these are {users or 'none'}"
            )
        message = {**self.messages[index], "content": text_argument(text, "text")}
        return self._answer(message, index % len(roles), options)

    def truncate(self, n_messages: int) -> None:
        """Forgets all but the first ``n_messages`` messages. Raises OptionError and DiskError."""
        if not 0 <= n_messages <= len(self.messages):
            raise OptionError(f"can't keep {n_messages} messages: there are {len(self.messages)}")
        with self._lock:
            self._end_running()
            del self.messages[n_messages:]
            self._memory.keep(self.messages)
            # A session is not to hold what was taken back.
            prompt: list[int] = []
            with contextlib.suppress(EdgeqwenError):  # what can't be rendered is read again
                prompt = self._turns.prompt(self.messages) if self.messages else []
            self._memory.cut(prompt)

    def fork(self) -> "Chat":
        """Returns a copy of the conversation, in memory: each goes on without the other.

        Nothing is read again. Raises ClosedError.
        """
        with self._lock:
            self._shared.check_open()
            self._end_running()
            return Chat(
                self._shared,
                self._tokenizer,
                self._template,
                self._sampling,
                self._memory.fork(),
                [dict(message) for message in self.messages],
                first_kept=self._turns.first_kept(self.messages),
                context_shift=self._context_shift,
            )

    def _answer(
        self, message: dict[str, Any], place: int | None, options: AnswerKeywords
    ) -> Generation:
        """Answers a message that comes at a place among the messages, or at their end."""
        sampling: dict[str, Any] = dict(options)
        max_tokens, stop = sampling.pop("max_tokens", None), sampling.pop("stop", ())
        progress = sampling.pop("progress", None)
        with self._lock:
            self._shared.check_open()
            self._end_running()
            messages = [*(self.messages if place is None else self.messages[:place]), message]
            prompt, forgotten = self._turns.prompt(messages), None
            max_context = self._shared.engine.max_context
            if self._context_shift and len(prompt) >= max_context:
                forgotten = self._turns.to_forget(messages, len(prompt))
                prompt = forgotten.after if forgotten is not None else prompt
            request = Request.checked(
                prompt,
                sampling_options(self._sampling, sampling),  # type: ignore[arg-type]
                max_context=max_context,
                max_tokens=max_tokens,
                stop=stop,
                progress=progress,
                too_long=self._advice(),
            )
            answer = Answer(len(prompt))
            turns = self._turns if self._context_shift else None
            source = AnswerMemory(self._memory, messages, turns, forgotten)
            pieces = generate_pieces(self._shared, self._tokenizer, request, source, answer)
            generation = Generation(answer, self._remember(message, place, pieces, answer))
            self._running = weakref.ref(generation)
            return generation

    def close(self) -> None:
        """Ends a running answer and frees the KV cache; a later ``send`` starts a new one.

        A session keeps the messages as they are by now. Raises DiskError.
        """
        with self._lock:
            self._end_running()
            self._memory.drop(self.messages)

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
        self,
        message: dict[str, Any],
        place: int | None,
        pieces: Generator[str, None, None],
        answer: Answer,
    ) -> Generator[str, None, None]:
        """Yields the pieces and keeps the turn in ``messages`` as far as it was yielded."""
        reply = {"role": "assistant", "content": ""}

        def enter() -> None:
            self.messages[len(self.messages) if place is None else place :] = [message, reply]

        try:
            with contextlib.closing(pieces):
                for piece in pieces:
                    if not reply["content"]:
                        enter()
                    reply["content"] += piece
                    yield piece
            if not reply["content"] and answer.finish_reason != "cancelled":
                enter()
        except BaseException:
            # Why it was broken off is worth more than why it can't be kept.
            with contextlib.suppress(EdgeqwenError):
                self._memory.keep(self.messages)
            raise
        self._memory.keep(self.messages)
