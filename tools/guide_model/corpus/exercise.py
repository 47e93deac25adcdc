"""An example, a task that makes examples, and what decides which of them are held out."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, TypeVar

Split = Literal["train", "held_out"]
T = TypeVar("T")

# One in so many of the keys below is never trained on.
HELD_OUT_EVERY = 12


@dataclass(frozen=True, slots=True)
class Example:
    """Messages that end with the assistant's answer, the only right one."""

    messages: tuple[dict[str, str], ...]
    # Function schemas, as a chat template takes them.
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def answer(self) -> str:
        """The last message's text."""
        return self.messages[-1]["content"]


@dataclass(frozen=True, slots=True)
class Fill:
    """A text with a hole, and what belongs there."""

    prefix: str
    suffix: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of exercise.

    ``make(random, split)`` returns an example of one side of the split. Shares are of examples in
    training; a task with share 0 is only measured.
    """

    name: str
    title: str
    share: float
    make: Callable[[Random, Split], Example | Fill]
    # Whether its examples can only stand at the beginning of a document.
    begins: bool = False


def ask(question: str, answer: str) -> Example:
    """Returns a conversation of one question and its answer."""
    return Example(
        ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    )


def split_of(*key: object) -> Split:
    """Returns the side of the split that everything with this key belongs to."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest()
    return "held_out" if int.from_bytes(digest, "big") % HELD_OUT_EVERY == 0 else "train"


def draw(make: Callable[[], T], key: Callable[[T], Sequence[object]], split: Split) -> T:
    """Returns the first of what ``make`` makes whose key is on this side of the split."""
    while True:
        made = make()
        if split_of(*key(made)) == split:
            return made
