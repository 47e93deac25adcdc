"""The same question in other words: synonyms, words left out, keywords alone.

A model that learns all its English from these texts would otherwise know a topic by one word.
"""

import re
from collections.abc import Callable, Sequence
from random import Random

from tools.guide_model.corpus.typing_habits import ENDING_WORDS, GREETING_WORDS

# Words that can stand for each other in the guide's questions without changing what is asked.
_SYNONYMS = (
    ("make", "create", "produce", "build"),
    ("get", "obtain"),
    ("show", "display", "print", "see", "list"),
    ("tell", "explain to", "inform"),
    ("start", "begin", "launch"),
    ("choose", "pick", "select"),
    ("change", "switch", "alter", "modify"),
    ("use", "take", "employ"),
    ("write", "save", "store"),
    ("measure", "test", "check", "find out"),
    ("convert", "turn", "transform"),
    ("fast", "quick"),
    ("faster", "quicker"),
    ("slow", "sluggish"),
    ("big", "large"),
    ("small", "little", "tiny"),
    ("computer", "machine", "PC", "laptop"),
    ("folder", "directory"),
    ("answer", "reply", "response"),
    ("answers", "replies", "responses"),
    ("message", "question", "prompt"),
    ("conversation", "chat", "dialogue"),
    ("possible", "allowed"),
    ("error", "failure", "problem"),
    ("which", "what"),
    ("command", "instruction"),
    ("need", "require"),
    ("can", "could", "may"),
    ("supported", "accepted", "allowed"),
    ("mean", "stand for", "say"),
    ("meaning", "sense"),
    ("difference", "distinction"),
    ("best", "right", "ideal"),
    ("quality", "accuracy"),
    ("download", "fetch"),
    ("install", "set up"),
    ("delete", "remove", "erase"),
    ("keep", "hold"),
    ("happens", "occurs"),
    ("allow", "let"),
    ("wait", "be patient"),
    ("only", "just"),
    ("several", "many", "multiple"),
    ("amount", "number"),
    ("program", "app", "application"),
    ("bits", "bit"),
    ("4", "four"),
    ("8", "eight"),
    ("why", "how come"),
)
_SAME = {word: group for group in _SYNONYMS for word in group if " " not in word}
# Some words stand in two groups, which are one here.
_FIRST: dict[str, str] = {}
for _group in _SYNONYMS:
    _known = [_FIRST[word.lower()] for word in _group if word.lower() in _FIRST]
    _first = _known[0] if _known else _group[0].lower()
    _FIRST = {word: _first if first in _known else first for word, first in _FIRST.items()}
    _FIRST |= {word.lower(): _first for word in _group}
_PHRASES = {word: group[0] for group in _SYNONYMS for word in group if " " in word}
_FILLERS = frozenset((
    "a", "an", "the", "how", "do", "does", "did", "i", "you", "we", "it", "is", "are",
    "was", "be", "to", "of", "for", "in", "on", "at", "with", "that", "this", "there",
    "my", "your", "me", "what", "which", "can", "could", "please", "want", "would", "like",
    "way", "and", "or", "so", "its", "by", "from", "as",
))  # fmt: skip


def reworded(random: Random, text: str) -> str:
    """Returns the text as it is, or with words replaced, left out or reduced to the keywords."""
    chance = random.random()
    if chance < 0.4:
        return text
    if chance < 0.7:
        return _mapped(text, lambda word: _synonym(random, word))
    if chance < 0.88:
        return _mapped(text, lambda word: "" if random.random() < 0.15 else word)
    words = [word for word in re.split(r"[\s?!]+", text) if word.lower() not in _FILLERS]
    return " ".join(words) if len(words) > 1 else text


def may_become(text: str, other: str) -> bool:
    """Whether one text, reworded and typed by somebody, may end as another.

    Case and punctuation don't count. It may also say so where the chance is next to nothing: any
    words may be missing, and others may stand for those that are there.
    """
    words = (*GREETING_WORDS, *_singles(_with_stand_ins(text)), *ENDING_WORDS)
    return any(_stand_in_order(_singles(form), words) for form in (other, _phrases_replaced(other)))


def _stand_in_order(some: list[str], words: Sequence[str]) -> bool:
    left = iter(words)
    # Each is looked for among those that the one before has left.
    return all(word in left for word in some)


def _singles(text: str) -> list[str]:
    """Returns the words without their punctuation, each as the first of its synonyms."""
    words = re.findall(r"[^\s?!.,:;]+", text.lower())
    return [_FIRST.get(word, word) for word in words]


def _phrases_replaced(text: str) -> str:
    """Returns the text with the first of its synonyms for each that has several words."""
    for phrase, first in _PHRASES.items():
        text = re.sub(rf"\b{phrase}\b", first, text, flags=re.IGNORECASE)
    return text


def _with_stand_ins(text: str) -> str:
    """Returns the text with the first synonym after each that has several words."""
    for phrase, first in _PHRASES.items():
        text = re.sub(rf"\b({phrase})\b", rf"\1 {first}", text, flags=re.IGNORECASE)
    return text


def _synonym(random: Random, word: str) -> str:
    group = _SAME.get(word.lower())
    if group is None or random.random() < 0.4:
        return word
    other = random.choice(group)
    return other[:1].upper() + other[1:] if word[:1].isupper() else other


def _mapped(text: str, change: Callable[[str], str]) -> str:
    """Applies a function to every plain word; what holds signs or digits, as code does, stays."""
    words = [_core(word, change) for word in text.split()]
    mapped = " ".join(filter(None, words))
    return mapped if any(c.isalnum() for c in mapped) else text


def _core(word: str, change: Callable[[str], str]) -> str:
    core = word.rstrip("?.!,")
    return change(core) + word[len(core) :] if core.isalpha() or core in _SAME else word
