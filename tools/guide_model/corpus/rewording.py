"""The same question in other words: synonyms, words left out, keywords alone.

A model that learns all its English from these texts would otherwise know a topic by one word.
"""

import re
from collections.abc import Callable
from random import Random

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
