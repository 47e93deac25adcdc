"""The KV cache that one generation runs in: a conversation's, or one of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeqwen.chat_memory import ChatMemory
from edgeqwen.context_shift import Forgotten, Turns
from edgeqwen.reuse import Reuse
from edgeqwen.shared_engine import SharedEngine

if TYPE_CHECKING:
    from edgeqwen.cache import Sequence as KvSequence


class AnswerMemory:
    """See ``edgeqwen.generation.SequenceSource``: the memory of a conversation for one answer.

    ``messages``: the last is being answered. With ``turns``, turns are forgotten during the answer
    where the context is full; ``forgotten`` are those that the prompt has lost by itself.
    """

    def __init__(
        self,
        memory: ChatMemory,
        messages: list[dict[str, Any]],
        turns: Turns | None,
        forgotten: Forgotten | None,
    ) -> None:
        self._memory, self._messages = memory, messages
        self._turns, self._forgotten = turns, forgotten
        self._n_prompt = self._n_reused = 0

    def acquire(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        self._memory.settle()
        if self._turns is not None and self._forgotten is not None:
            # Not before: an answer that nobody asks for a piece of changes nothing.
            self._memory.forget(self._forgotten)
            self._turns.forget(self._forgotten)
        sequence, n_shared = self._memory.sequence_for(prompt, self._messages)
        self._n_prompt, self._n_reused = len(prompt), n_shared
        # A process that is killed from here on leaves the question, and what there is of an answer.
        self._memory.keep(self._messages, n_prompt=len(prompt))
        return sequence, n_shared

    def release(self, sequence: "KvSequence") -> None:
        """The sequence stays for the next turn."""
        self._memory.read(sequence, self._n_prompt, self._n_reused)

    def make_room(self, sequence: "KvSequence") -> bool:
        if self._turns is None:
            return False
        forgotten = self._turns.to_forget(self._messages, sequence.n_tokens)
        place = forgotten.place() if forgotten is not None else None
        if forgotten is None or place is None:
            return False
        first, n = place
        self._memory.keep(self._messages, n_prompt=self._n_prompt, n_dropped=n)
        self._memory.shift(sequence, first, n)
        self._n_prompt -= n
        self._turns.forget(forgotten)
        self._memory.keep(self._messages, n_prompt=self._n_prompt)
        return True


class OneUse:
    """See ``edgeqwen.generation.SequenceSource``: a sequence for one generation, then freed."""

    def __init__(self, shared: SharedEngine, reuse: Reuse) -> None:
        self._shared, self._reuse = shared, reuse
        self._n_prompt = self._n_reused = 0

    def acquire(self, prompt: Sequence[int]) -> tuple["KvSequence", int]:
        sequence = self._shared.new_sequence(self._reuse.find(prompt, 0))
        self._n_prompt, self._n_reused = len(prompt), sequence.n_tokens
        return sequence, sequence.n_tokens

    def release(self, sequence: "KvSequence") -> None:
        if self._shared.holds(sequence):
            self._reuse.keep(sequence, self._n_prompt, self._n_reused)
        self._shared.release(sequence)

    def make_room(self, sequence: "KvSequence") -> bool:
        return False
