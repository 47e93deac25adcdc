"""Small talk in a few languages, from small_talk.toml."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask
from tools.guide_model.corpus.typing_habits import as_typed

_FILE = Path(__file__).resolve().parents[1] / "small_talk.toml"


@dataclass(frozen=True, slots=True)
class Talk:
    """Something that people say, in several wordings, and what is answered."""

    id: str
    language: str
    says: list[str]
    # Wordings that are kept from the model while it learns.
    held_out: list[str]
    answer: str


@cache
def talks() -> tuple[Talk, ...]:
    """Returns all of them."""
    with _FILE.open("rb") as file:
        return tuple(Talk(**talk) for talk in tomllib.load(file)["talk"])


def small_talk(random: Random, split: Split) -> Example:
    """Returns something said and its answer."""
    talk = random.choice(talks())
    if split == "held_out":
        return ask(random.choice(talk.held_out), talk.answer)
    said = as_typed(random, random.choice(talk.says))
    return ask(said, talk.answer)
