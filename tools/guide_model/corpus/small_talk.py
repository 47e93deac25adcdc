"""Small talk in a few languages, from small_talk.toml."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask
from tools.guide_model.corpus.typing_habits import as_typed, plain, typed_forms

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


@cache
def _typed() -> frozenset[str]:
    return frozenset(form for talk in talks() for said in talk.says for form in typed_forms(said))


def unseen(talk: Talk) -> tuple[str, ...]:
    """Returns the wordings kept for measuring that no training text could be typed as."""
    return tuple(text for text in talk.held_out if plain(text) not in _typed())


def small_talk(random: Random, split: Split) -> Example:
    """Returns something said and its answer."""
    if split == "held_out":
        talk = random.choice([talk for talk in talks() if unseen(talk)])
        return ask(random.choice(unseen(talk)), talk.answer)
    talk = random.choice(talks())
    said = as_typed(random, random.choice(talk.says))
    return ask(said, talk.answer)
