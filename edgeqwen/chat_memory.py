"""The KV cache of a conversation, in memory or in a session, cut back to what a prompt shares."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeqwen.cache.tokens import common_prefix
from edgeqwen.context_shift import Forgotten, Turns
from edgeqwen.reuse import Reuse
from edgeqwen.shared_engine import SharedEngine

if TYPE_CHECKING:
    from edgeqwen.cache import Sequence as KvSequence
    from edgeqwen.sessions import ChatSession


class ChatMemory:
    """What a chat has read: a sequence, and the session that keeps it, if any.

    ``sequence`` goes on with the session's file, if there is one; it is this object's from now on.
    """

    def __init__(
        self,
        shared: SharedEngine,
        reuse: Reuse | None = None,
        sequence: "KvSequence | None" = None,
        session: "ChatSession | None" = None,
    ) -> None:
        self._shared, self._reuse = shared, reuse
        self._sequence, self._session = sequence, session
        # Which turns are forgotten, for the session to keep; the chat says it.
        self.turns: Turns | None = None

    @classmethod
    def of(
        cls,
        session: "ChatSession",
        shared: SharedEngine,
        reuse: Reuse,
        *,
        rebuild: bool,
        fork: bool,
    ) -> "ChatMemory":
        """Opens a session, or copies it into memory: see ``Model.chat``.

        Raises SessionError and DiskError.
        """
        try:
            store = session.copied() if fork else session.open(rebuild=rebuild)
            sequence = shared.new_sequence(store)
        except BaseException:
            session.close()
            raise
        return cls(shared, reuse, sequence, None if fork else session)

    @property
    def path(self) -> Path | None:
        """The session's file."""
        return None if self._session is None else self._session.path

    def sequence_for(
        self, prompt: Sequence[int], messages: list[dict[str, Any]]
    ) -> tuple["KvSequence", int]:
        """Returns a sequence with a beginning of the prompt of messages, and how long that is.

        That is what the live sequence shares with the prompt, or what was kept of another one.
        """
        sequence = self._held()
        # The last token is read again even if it is there: its logits are what is wanted.
        n_shared = common_prefix(sequence.tokens, prompt[:-1])
        if self.turns is None or not self.turns.first_kept(messages):
            # Nothing is left out of this prompt; what still knows other turns isn't its beginning.
            n_shared = min(n_shared, sequence.n_in_order)
        found = self._reuse.find(prompt, n_shared) if self._reuse is not None else None
        if found is not None and self._session is None:
            self._shared.release(sequence)
            sequence = self._sequence = self._shared.new_sequence(found)
            return sequence, sequence.n_tokens
        with self._shared.at_work(sequence):
            sequence.truncate(n_shared)
            if found is not None:
                sequence.go_on_with(found)
                found.close()
        return sequence, sequence.n_tokens

    def read(self, sequence: "KvSequence", n_prompt: int, n_reused: int) -> None:
        """Says that a prompt was read, so that it is kept for others if that took long."""
        if self._reuse is not None and self._shared.holds(sequence):
            self._reuse.keep(sequence, n_prompt, n_reused)

    def keep(
        self, messages: list[dict[str, Any]], n_prompt: int | None = None, n_dropped: int = 0
    ) -> None:
        """Has the session keep the messages, and seals it unless the last is being answered.

        ``n_prompt``: tokens of the prompt that is being answered; ``n_dropped`` of them are about
        to be forgotten. Raises DiskError.
        """
        if self._session is not None:
            sequence = self._held()
            first_kept = self.turns.first_kept(messages) if self.turns is not None else 0
            with self._shared.at_work(sequence):
                self._session.keep(messages, first_kept, n_prompt, n_dropped)
                if n_prompt is None:
                    sequence.seal()

    def settle(self) -> None:
        """Has the session keep what it has restored, before anything is taken away.

        Raises DiskError.
        """
        if self._session is not None:
            with self._shared.at_work(self._held()):
                self._session.settle()

    def cut(self, prompt: Sequence[int]) -> None:
        """Takes away what isn't of a prompt any more."""
        sequence = self._held()
        with self._shared.at_work(sequence):
            sequence.truncate(common_prefix(sequence.tokens, prompt))

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
        """Forgets ``n`` tokens from ``first`` on."""
        self._shared.shift(sequence, first, n)

    def fork(self) -> "ChatMemory":
        """Returns a copy in memory."""
        sequence = self._sequence
        if sequence is None or not self._shared.holds(sequence):
            return ChatMemory(self._shared, self._reuse)
        return ChatMemory(self._shared, self._reuse, self._shared.fork(sequence))

    def drop(self, messages: list[dict[str, Any]]) -> None:
        """Frees the sequence; a session's file is closed, and opened again when it is needed.

        It keeps the messages. Raises DiskError, and frees the sequence all the same.
        """
        try:
            if self._sequence is not None and self._shared.holds(self._sequence):
                self.keep(messages)
        finally:
            if self._sequence is not None:
                self._shared.release(self._sequence)
                self._sequence = None

    def _held(self) -> "KvSequence":
        """Returns the sequence, made anew where a failure or ``drop`` has taken it."""
        self._shared.check_open()
        if self._sequence is None or not self._shared.holds(self._sequence):
            store = None if self._session is None else self._session.open_again()
            self._sequence = self._shared.new_sequence(store)
        return self._sequence
