"""Which turns of a conversation its prompt holds, when not all of them fit into the context.

The first turn stays: it mostly says what the conversation is about. So do the system prompt, and
the question that is being answered. Between them, the oldest turns are forgotten, whole ones, until
about half of the context behind the first turn is free; so it doesn't happen again soon.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeqwen.cache.tokens import common_prefix

Message = dict[str, Any]
Encode = Callable[[Sequence[Message]], list[int]]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Prompts with and without some turns, and the first message after these."""

    before: list[int]
    after: list[int]
    first_kept: Message

    def place(self) -> tuple[int, int] | None:
        """Returns where the tokens were that are left out, as (first, n).

        Turns begin alike (``<|im_start|>user``); what the first of those left out shares with the
        first that stays counts as staying, for the tokens are the same either way. None where the
        rest is other tokens than it was: a template may render a message otherwise when others are
        gone.
        """
        n = len(self.before) - len(self.after)
        first = common_prefix(self.before, self.after)
        if n <= 0 or self.before[first + n :] != self.after[first:]:
            return None
        return first, n


class Turns:
    """The turns of one conversation. ``encode`` makes a prompt of messages.

    A turn is a message of the user with all that follows it before the next one. Messages may be
    edited between answers: what was forgotten is known by the first message after it, and where
    that is gone, nothing counts as forgotten.
    """

    def __init__(self, encode: Encode, max_context: int) -> None:
        self._encode = encode
        self._max_context = max_context
        self._first_kept: Message | None = None

    def first_kept(self, messages: Sequence[Message]) -> int:
        """Returns the index of the first message after those that were forgotten, else 0."""
        return self._start(messages)

    def forget_before(self, message: Message | None) -> None:
        """Leaves the turns between the first and a message out of the prompt; None: no turns."""
        self._first_kept = message

    def n_forgotten(self, messages: Sequence[Message]) -> int:
        """Returns how many turns are left out of the prompt."""
        if self._first_kept is None:
            return 0
        users = _questions(messages)
        start = self._start(messages)
        return sum(self._end_of_head(messages, users) <= i < start for i in users)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Returns the tokens of all messages but the forgotten ones."""
        start = self._start(messages)
        if start == 0:
            return self._encode(messages)
        end = self._end_of_head(messages, _questions(messages))
        # Whoever edits the messages may bring the two together, or past each other.
        return self._encode([*messages[:end], *messages[max(start, end) :]])

    def to_forget(self, messages: Sequence[Message], n_tokens: int) -> Forgotten | None:
        """Chooses turns to be forgotten where prompt and answer have ``n_tokens`` so far.

        None where there are none: the last one is being answered. ``forget`` makes it so.
        """
        users = _questions(messages)
        end = self._end_of_head(messages, users)
        start = max(self._start(messages), end)
        later = [i for i in users if i > start]
        if not later:
            return None
        before = self.prompt(messages)
        n_head = len(self._encode(messages[:end])) if end > users[0] else 0
        n_wanted = (self._max_context + n_head) // 2 - (n_tokens - len(before))

        def prompt_from(i: int) -> list[int]:
            return self._encode([*messages[:end], *messages[i:]])

        fitting = bisect.bisect_left(later, True, key=lambda i: len(prompt_from(i)) <= n_wanted)
        chosen = later[min(fitting, len(later) - 1)]
        return Forgotten(before, prompt_from(chosen), messages[chosen])

    def forget(self, forgotten: Forgotten) -> None:
        """Leaves the turns out of the prompt from now on."""
        self._first_kept = forgotten.first_kept

    def _start(self, messages: Sequence[Message]) -> int:
        """Returns the index of the first message after those that were forgotten, else 0."""
        kept = self._first_kept
        return next((i for i, message in enumerate(messages) if message is kept), 0)

    def _end_of_head(self, messages: Sequence[Message], users: Sequence[int]) -> int:
        """Returns how many messages are never forgotten: the first turn, unless it is too long."""
        if len(users) < 2:
            return users[0] if users else 0
        whole = len(self._encode(messages[: users[1]])) <= self._max_context // 4
        return users[1] if whole else users[0]


def _questions(messages: Sequence[Message]) -> list[int]:
    return [i for i, message in enumerate(messages) if message.get("role") == "user"]
