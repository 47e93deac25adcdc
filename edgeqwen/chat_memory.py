"""The KV cache of a conversation, in memory or in a session, cut back to what a prompt shares."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        sequence: "KvSequence | None" = None,
        session: "ChatSession | None" = None,
    ) -> None:
        self._shared, self._sequence, self._session = shared, sequence, session

    @property
    def path(self) -> Path | None:
        """The session's file."""
        return None if self._session is None else self._session.path

    def answering(self, messages: list[dict[str, Any]]) -> "_Answering":
        """Returns where the answer to the last of the messages gets its sequence from."""
        return _Answering(self, messages)

    def sequence_for(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        """Returns the sequence, cut back to what it shares with a prompt, and how much that is."""
        sequence = self._held()
        # The last token is read again even if it is there: its logits are what is wanted.
        n_shared = common_prefix(sequence.tokens, prompt[:-1])
        with self._shared.at_work(sequence):
            sequence.truncate(n_shared)
        return sequence, n_shared

    def keep(self, messages: list[dict[str, Any]], n_prompt: int | None = None) -> None:
        """Has the session keep the messages, and seals it unless the last is being answered."""
        if self._session is not None:
            sequence = self._held()
            with self._shared.at_work(sequence):
                self._session.keep(messages, n_prompt)
                if n_prompt is None:
                    sequence.seal()

    def fork(self) -> "ChatMemory":
        """Returns a copy in memory."""
        sequence = self._sequence
        if sequence is None or not self._shared.holds(sequence):
            return ChatMemory(self._shared)
        return ChatMemory(self._shared, self._shared.fork(sequence))

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

    def acquire(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        sequence, n_shared = self._memory.sequence_for(prompt)
        # A process that is killed from here on leaves the question, and what there is of an answer.
        self._memory.keep(self._messages, n_prompt=len(prompt))
        return sequence, n_shared

    def release(self, sequence: "KvSequence") -> None:
        """The sequence stays for the next turn."""


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Returns how many tokens two sequences begin with in common."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
