"""Loading a model, and what an application then holds: ``Model``."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np

from edgeqwen.answer_memory import OneUse
from edgeqwen.chat import Chat
from edgeqwen.chat_memory import ChatMemory
from edgeqwen.config import ModelConfig
from edgeqwen.engine import Engine
from edgeqwen.errors import FileFormatError, OptionError
from edgeqwen.generation import Answer, Generation, generate_pieces
from edgeqwen.gguf_file import GgufFile
from edgeqwen.model.steps import LOGITS_TOKENS
from edgeqwen.options import (
    Request,
    SamplingKeywords,
    check_fits,
    positive_integer,
    sampling_options,
    text_argument,
    token_ids,
)
from edgeqwen.reuse import DEFAULT_PREFIX_BYTES, Reuse
from edgeqwen.sampling import SamplingOptions
from edgeqwen.shared_engine import SharedEngine
from edgeqwen.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edgeqwen.sessions import ChatSession
    from edgeqwen.text.chat_template import ChatTemplate


def load(
    path: str | Path | None = None,
    *,
    n_threads: int | None = None,
    max_context: int | None = None,
    cache_type: str = "f16",
    full_head: bool = False,
    prefix_cache: int | bool = True,
    rope_scaling: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    compiling: Callable[[int, int], None] | None = None,
) -> "Model":
    """Loads a GGUF file and returns the model.

    ``path``: None is the model that comes with edgeqwen, a small guide to edgeqwen itself.
    ``n_threads``: threads that compute, by default one for each processor that may be used.
    ``max_context``: tokens that a conversation may hold, by default as many as the model was
    trained for; memory is taken only for the tokens that are really there.
    ``cache_type``: how keys and values are kept: "f16", "bf16", about half of that in "q8_0", a
    quarter in "q4_0", or, exact but twice the size, "f32".
    ``full_head``: computes all logits for every token, also where the likeliest are enough and a
    screen by the highest bits of the weights finds them in less time.
    ``prefix_cache``: the states of long prompts are kept in the user's cache folder, where other
    processes find them, in so many bytes; by default 4 GiB. False or 0 keeps and finds none.
    ``rope_scaling``: makes the context longer than the model was trained for, where the file
    doesn't do so by itself; in the words of a config.json, {"rope_type": "yarn", "factor": 4.0}
    for four times as long. It changes the answers to short texts, too, if little.
    ``progress(done, total)`` is called with bytes while the weights are loaded, ``compiling`` with
    kernels, whose first use on a CPU takes time.

    Raises FileFormatError for a file that is missing or damaged, UnsupportedError for one that this
    version can't run, and OptionError for senseless options.
    """
    if n_threads is not None:
        n_threads = positive_integer(n_threads, "n_threads")
    if max_context is not None:
        max_context = positive_integer(max_context, "max_context")
    limit = DEFAULT_PREFIX_BYTES if prefix_cache is True else int(prefix_cache)
    if limit < 0:
        raise OptionError(f"prefix_cache is {prefix_cache}: expected True, False or some bytes")
    if path is None:
        from edgeqwen import guide

        path = guide.model_path()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(GgufFile.open(path))
        engine = Engine(
            file,
            n_threads=n_threads,
            max_context=max_context,
            cache_type=cache_type,
            full_head=full_head,
            rope_scaling=rope_scaling,
            pack=False,
        )
        stack.callback(engine.close)
        engine.prepare(compiling)
        # While threads pack the weights.
        tokenizer = Tokenizer.from_gguf(file)
        sampling = SamplingOptions.from_gguf(file.metadata)
        n_rows = engine.config.vocab_size
        if tokenizer.vocab_size != n_rows:
            raise FileFormatError(
                f"{path}: tokenizer.ggml.tokens has {tokenizer.vocab_size} tokens, expected "
                f"{n_rows}, the rows of token_embd.weight; convert the model again"
            )
        engine.wait_until_loaded(progress)
        stack.pop_all()
    return Model(engine, tokenizer, file, sampling, limit)


class Model:
    """A loaded model. Generates text, holds conversations, gives logits; ``load`` makes it.

    It may be used from several threads: their generations take turns, token by token. Use it as a
    context manager or call ``close`` to free its memory; afterwards everything raises ClosedError.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        file: GgufFile,
        sampling: SamplingOptions,
        prefix_cache: int = 0,
    ) -> None:
        """``prefix_cache``: bytes of the user's cache folder that long prompts may take."""
        self._file = file
        self._shared = SharedEngine(engine, name=str(file.path))
        self._reuse = Reuse(engine, file, prefix_cache)
        self._template: ChatTemplate | None = None
        self.tokenizer = tokenizer
        self.sampling = sampling

    @property
    def config(self) -> ModelConfig:
        return self.engine.config

    @property
    def engine(self) -> Engine:
        """The engine underneath, for measurements; it knows nothing of turns between threads."""
        return self._shared.engine

    @property
    def chat_template(self) -> "ChatTemplate":
        """The file's own chat template; TemplateError if it has none or a broken one."""
        if self._template is None:
            # Late: it brings a template engine, which generating from a text doesn't need.
            from edgeqwen.text.chat_template import ChatTemplate

            self._shared.check_open()
            self._template = ChatTemplate.from_gguf(self._file)
        return self._template

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        stop: str | Iterable[str] = (),
        progress: Callable[[int, int], None] | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Generation:
        """Returns the continuation of a prompt; iterate over it for the pieces of its text.

        ``prompt``: text, in which special tokens such as ``<|im_start|>`` are recognised, or token
        ids. It is continued as it stands; ``chat`` applies the chat template.
        ``max_tokens``: None means until the model ends its answer or the context is full.
        ``stop``: strings before which the text is cut. The text leaves control tokens out.
        ``progress(done, total)`` is called with tokens while the prompt is read.
        ``sampling``: temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
        frequency_penalty, seed; what is left out or None comes from the file (``self.sampling``).
        Temperature 0 takes the likeliest token.

        Raises at once: OptionError, ClosedError, and ContextFullError if the prompt doesn't fit.
        """
        self._shared.check_open()
        if isinstance(prompt, str):
            prompt = self.tokenizer.encode(prompt, allow_special=True)
        request = Request.checked(
            token_ids(prompt, self.config.vocab_size, "prompt"),
            sampling_options(self.sampling, sampling),
            max_context=self.engine.max_context,
            max_tokens=max_tokens,
            stop=stop,
            progress=progress,
        )
        answer = Answer(len(request.prompt))
        pieces = generate_pieces(
            self._shared, self.tokenizer, request, OneUse(self._shared, self._reuse), answer
        )
        return Generation(answer, pieces)

    def chat(
        self,
        system: str | None = None,
        *,
        session: str | Path | None = None,
        rebuild: bool = False,
        fork: bool = False,
        context_shift: bool = False,
        **sampling: Unpack[SamplingKeywords],
    ) -> Chat:
        """Returns a conversation: a new one, or the one that a session holds.

        ``system``: the system prompt; None leaves it to the session, or else to the model's
        template, which usually has one. ``session``: a file that keeps the conversation, made if
        there is none; a process may be killed at any instant, and loses the step under way at most.
        ``rebuild``: a session of another model or cache type, or a damaged one, is made anew: its
        messages are read again. ``fork``: the conversation is copied into memory, and the file,
        which may be open elsewhere, stays as it is. ``context_shift``: forgets the oldest turns
        after the first when the context is full; otherwise an answer ends there, and the next
        message is refused. ``sampling``: defaults for every answer, as in ``generate``.

        Raises SessionError for a session that can't be continued, SessionLockedError for one that
        is open elsewhere, DiskError where it can't be written, OptionError and ClosedError.
        """
        self._shared.check_open()
        options = sampling_options(self.sampling, sampling)
        template = self.chat_template
        if system is not None:
            system = text_argument(system, "system")
        if session is None and (rebuild or fork):
            raise OptionError("rebuild and fork are about a session, and none is named")
        if rebuild and fork:
            raise OptionError("rebuild and fork: a copy leaves the session as it is; choose one")
        memory, messages, first_kept = ChatMemory(self._shared, self._reuse), [], 0
        if session is not None:
            kept = self._session(Path(session))
            memory = ChatMemory.of(kept, self._shared, self._reuse, rebuild=rebuild, fork=fork)
            messages, first_kept = kept.messages, kept.first_kept
        if system is not None:
            has_system = bool(messages) and messages[0]["role"] == "system"
            messages = [{"role": "system", "content": system}, *messages[int(has_system) :]]
            first_kept += int(bool(first_kept) and not has_system)
        return Chat(
            self._shared,
            self.tokenizer,
            template,
            options,
            memory,
            messages,
            first_kept=first_kept,
            context_shift=context_shift,
        )

    def _session(self, path: Path) -> "ChatSession":
        from edgeqwen.sessions import ChatSession, identity_of

        def decode(tokens: Sequence[int]) -> str:
            return self.tokenizer.decode(tokens, skip_special=True)

        return ChatSession(path, identity_of(self.engine, self._file), decode)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Returns float32 [n_tokens, vocab_size]: row i holds the logits after ``tokens[:i + 1]``.

        Raises OptionError, ClosedError, and ContextFullError if the tokens don't fit.
        """
        self._shared.check_open()
        ids = token_ids(tokens, self.config.vocab_size, "tokens")
        check_fits(len(ids), self.engine.max_context)
        return self._shared.logits(ids)

    def logits_in_parts(
        self,
        tokens: Sequence[int],
        *,
        first: int = 0,
        cancelled: Callable[[], bool] | None = None,
    ) -> Generator[np.ndarray, None, None]:
        """Yields the rows of ``logits(tokens)`` from row ``first`` on, 32 or fewer at a time.

        So a long text takes little memory, and rows that nobody wants cost less. Ends early when
        ``cancelled()``, which is asked between the steps. Raises at once what ``logits`` raises,
        and OptionError for a ``first`` that is none of its rows.
        """
        self._shared.check_open()
        ids = token_ids(tokens, self.config.vocab_size, "tokens")
        check_fits(len(ids), self.engine.max_context)
        if not 0 <= first < len(ids):
            raise OptionError(f"first is {first}: expected a row from 0 to {len(ids) - 1}")
        return self._shared.logits_in_parts(ids, first, size=LOGITS_TOKENS, cancelled=cancelled)

    def cache_bytes(self, n_tokens: int | None = None) -> int:
        """Returns the bytes of memory that the keys and values of so many tokens take.

        None: of the whole context. They are taken as tokens come, 256 at a time.
        """
        n = self.engine.max_context if n_tokens is None else positive_integer(n_tokens, "n_tokens")
        return self.engine.cache_bytes(n)

    def close(self) -> None:
        """Frees the weights and every KV cache, after the step under way. Idempotent.

        Waits until long prompts are kept.
        """
        self._reuse.wait()
        self._shared.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._shared.closed else f"{self.config.n_layers} layers"
        return f"<Model {self._shared.name}: {state}>"
