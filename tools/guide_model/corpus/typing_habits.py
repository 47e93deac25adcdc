"""The same question as different people type it."""

import re
from random import Random

_GREETINGS = ("Hi, ", "Hello, ", "Hey, ", "Hi! ", "Hello! ", "Good morning, ")
_ENDINGS = (" please", ", please", " Thanks!", " thanks")
GREETING_WORDS = ("hi", "hello", "hey", "good", "morning")
ENDING_WORDS = ("please", "thanks")


def as_typed(random: Random, text: str) -> str:
    """Returns the text with the case, punctuation and politeness of one person or another."""
    if random.random() < 0.35:
        return text
    code = "`" in text or "--" in text or re.search(r"\b[A-Z_]{4,}\b|\.py|model\.", text)
    if random.random() < 0.5:
        text = text.rstrip("?.!")
    if random.random() < 0.45 and not code:
        text = text.lower()
    elif random.random() < 0.3:
        text = text[:1].lower() + text[1:]
    if random.random() < 0.06 and not code:
        text = _mistyped(random, text)
    if random.random() < 0.06:
        text = random.choice(_GREETINGS) + text
    if random.random() < 0.05 and text[-1:].isalnum():
        text += random.choice(_ENDINGS)
    return text


def plain(text: str) -> str:
    """Returns the letters and digits, which all ways to type a text have in common."""
    return "".join(c for c in text.lower() if c.isalnum())


def typed_forms(text: str) -> frozenset[str]:
    """Returns ``plain`` of all that ``as_typed`` makes of a text, but for slips of the finger."""
    return frozenset(
        plain(greeting + text + ending)
        for greeting in ("", *_GREETINGS)
        for ending in ("", *_ENDINGS)
    )


def _mistyped(random: Random, text: str) -> str:
    """Returns the text with two neighbouring letters swapped, or one left out."""
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    i = random.choice(places)
    if random.random() < 0.5:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + text[i + 1 :]
