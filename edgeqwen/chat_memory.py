"""The KV cache of a conversation, in memory or in a session, cut back to what a prompt shares."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeqwen.cache.tokens import common_prefix
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

    @property
    def path(self) -> Path | None:
        """The session's file."""
        return None if self._session is None else self._session.path

    def answering(self, messages: list[dict[str, Any]]) -> "_Answering":
        """Returns where the answer to the last of the messages gets its sequence from."""
        return _Answering(self, messages)

    def sequence_for(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        """Returns a sequence with a beginning of a prompt, and how long that is.

        That is what the live sequence shares with the prompt, or what was kept of another one.
        """
        sequence = self._held()
        # The last token is read again even if it is there: its logits are what is wanted.
        n_shared = common_prefix(sequence.tokens, prompt[:-1])
        found = self._reuse.find(prompt, n_shared) if self._reuse is not None else None
        if found is not None and self._session is None:
            self._shared.release(sequence)
            sequence = self._sequence = self._shared.new_sequence(found)
            return sequence, sequence.n_tokens
        sequence.truncate(n_shared)
        if found is not None:
            sequence.go_on_with(found)
            found.close()
        return sequence, sequence.n_tokens

    def read(self, sequence: "KvSequence", n_prompt: int, n_reused: int) -> None:
        """Says that a prompt was read, so that it is kept for others if that took long."""
        if self._reuse is not None and self._shared.holds(sequence):
            self._reuse.keep(sequence, n_prompt, n_reused)

    def keep(self, messages: list[dict[str, Any]], n_prompt: int | None = None) -> None:
        """Has the session keep the messages, and seals it unless the last is being answered."""
        if self._session is not None:
            sequence = self._held()
            self._session.keep(messages, n_prompt)
            if n_prompt is None:
                sequence.seal()

    def fork(self) -> "ChatMemory":
        """Returns a copy in memory."""
        sequence = self._sequence
        if sequence is None or not self._shared.holds(sequence):
            return ChatMemory(self._shared, self._reuse)
        return ChatMemory(self._shared, self._reuse, self._shared.fork(sequence))

    def drop(self) -> None:
        """Frees the sequence; a session's file is closed, and opened again when it is needed."""
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


class _Answering:
    """See ``edgeqwen.generation.SequenceSource``: one answer of a conversation."""

    def __init__(self, memory: ChatMemory, messages: list[dict[str, Any]]) -> None:
        self._memory, self._messages = memory, messages
        self._n_prompt = self._n_reused = 0

    def acquire(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        sequence, n_shared = self._memory.sequence_for(prompt)
        self._n_prompt, self._n_reused = len(prompt), n_shared
        # A process that is killed from here on leaves the question, and what there is of an answer.
        self._memory.keep(self._messages, n_prompt=len(prompt))
        return sequence, n_shared

    def release(self, sequence: "KvSequence") -> None:
        """The sequence stays for the next turn."""
        self._memory.read(sequence, self._n_prompt, self._n_reused)
