"""The sessions of a model: opened, made anew, copied, and the conversations in them."""

import contextlib
import hashlib
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeqwen.cache.fingerprint import weights_digest
from edgeqwen.cache.session_copies import copy_to_memory
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import Identity
from edgeqwen.cache.session_paths import exists, real_path
from edgeqwen.cache.session_state import salvage
from edgeqwen.cache.store import MemoryStore, Store
from edgeqwen.errors import DiskError, SessionError, SessionLockedError
from edgeqwen.kernels.cache_types import CACHE_TYPES
from edgeqwen.model.key_biases import SAMPLED_ROWS
from edgeqwen.model.rope_frequencies import rope_frequencies
from edgeqwen.transcript import Transcript

if TYPE_CHECKING:
    from edgeqwen.engine import Engine
    from edgeqwen.gguf_file import GgufFile


def identity_of(engine: "Engine", file: "GgufFile") -> Identity:
    """Returns what keys and values must have been computed by to be used with a model.

    The bytes of its file are read when this is asked for the first time.
    """
    config = engine.config
    frequencies, factor = rope_frequencies(config)
    # What of the biases of keys isn't in the cache depends on the weights and on this rule.
    rule = CACHE_TYPES[engine.layout.cache_type].bias_factor or 0.0, SAMPLED_ROWS
    numbers = struct.pack("<dddI", factor, config.rms_norm_eps, *rule)
    return Identity(
        engine.layout,
        weights_digest(file, engine.n_threads),
        hashlib.sha256(frequencies.astype("<f4").tobytes() + numbers).digest(),
        config.vocab_size,
        config.name,
    )


class ChatSession:
    """The session that a chat is kept in; its file can be opened again after a failure.

    ``messages`` are those that it held when it was opened; ``first_kept``: see ``Transcript``.
    """

    def __init__(
        self, path: Path, identity: Identity, decode: Callable[[Sequence[int]], str]
    ) -> None:
        """``decode`` gives the text of tokens without special ones. ``open`` comes next."""
        self.path, self._identity, self._decode = real_path(path), identity, decode
        self.messages: list[dict[str, Any]] = []
        self.first_kept = 0
        self._file: SessionFile | None = None
        # What the file may hold of the messages, if nobody else has written to it.
        self._kept: tuple[bytes, ...] = ()
        self._owes = False

    def open(self, *, rebuild: bool = False) -> Store:
        """Opens the file, or makes it, and returns what a sequence goes on with.

        ``rebuild``: one that can't be continued is made anew with its messages, whose tokens are
        read again by the next answer. Raises SessionError and DiskError.
        """
        if not exists(self.path):
            self._file = SessionFile.create(self.path, self._identity)
            self._kept = (b"",)
        else:
            try:
                file = self._file = SessionFile.open(self.path, self._identity)
                transcript = file.transcript
                self._kept = (transcript,)
                if self._restore(transcript, file.tokens, file.edits):
                    # A full disk is no reason not to open it.
                    self._owes = True
                    with contextlib.suppress(DiskError):
                        self.settle()
                        file.seal()
            except SessionLockedError:
                raise
            except SessionError:
                self.close()
                if not rebuild:
                    raise
                self._file = self._rebuilt()
        return self._file

    def open_again(self) -> Store:
        """Opens the file after a failure; the messages stay what the chat made of them.

        Raises SessionError where others have changed its messages since.
        """
        self.close()
        file = SessionFile.open(self.path, self._identity)
        try:
            found = file.transcript
            if found not in self._kept:
                raise SessionError(
                    f"{self.path}: was changed by another conversation since this one closed it; "
                    "open it again to go on from there"
                )
        except BaseException:
            file.abandon()
            raise
        self._file, self._kept = file, (found,)
        return file

    def settle(self) -> None:
        """Keeps an answer that was broken off as a message, before its tokens are taken away.

        Raises DiskError.
        """
        if self._owes:
            self._store(Transcript(self.messages, self.first_kept))

    def copied(self) -> MemoryStore:
        """Returns a copy of the session in memory, beside whoever writes it.

        Raises SessionError.
        """
        store, transcript, edits = copy_to_memory(self.path, self._identity)
        self._restore(transcript, store.tokens, edits)
        return store

    def keep(
        self,
        messages: list[dict[str, Any]],
        first_kept: int,
        n_prompt: int | None = None,
        n_dropped: int = 0,
    ) -> None:
        """Stores the messages. ``first_kept``: see ``Transcript``.

        ``n_prompt``: the last message is being answered, after so many tokens, of which
        ``n_dropped`` are about to be forgotten. Raises DiskError.
        """
        if self._file is not None:
            answers: tuple[tuple[int, int], ...] = ()
            if n_prompt is not None:
                edits = self._file.edits
                answers = ((n_prompt, edits),)
                if n_dropped:
                    answers += ((n_prompt - n_dropped, edits + 1),)
            self._store(Transcript(messages, first_kept, answers))

    def _store(self, transcript: Transcript) -> None:
        assert self._file is not None
        data = transcript.encode()
        if self._kept != (data,):
            # A failure leaves what was there, or this.
            self._kept = (*self._kept, data)
            self._file.set_transcript(data)
            self._kept, self._owes = (data,), False

    def close(self) -> None:
        """Lets go of a file that was opened and that no sequence has taken over."""
        if self._file is not None:
            self._file.abandon()
            self._file = None

    def _restore(self, data: bytes, tokens: Sequence[int], edits: int) -> bool:
        """Takes the messages over; returns whether the last is an answer that was broken off."""
        transcript = Transcript.decode(data, self.path)
        answer = transcript.answer_tokens(tokens, edits)
        self.messages = transcript.restored(self._decode(answer) if answer else None)
        self.first_kept = max(0, min(transcript.first_kept, len(self.messages) - 1))
        return bool(answer)

    def _rebuilt(self) -> SessionFile:
        transcript, tokens, edits = salvage(self.path)
        known = not tokens or max(tokens) < self._identity.vocab_size
        self._restore(transcript, tokens if known else [], edits)
        kept = Transcript(self.messages, self.first_kept).encode() if self.messages else b""
        self._kept, self._owes = (kept,), False
        return SessionFile.create(self.path, self._identity, transcript=kept, replace=True)
