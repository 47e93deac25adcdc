"""Repeat, reverse, sort and count the items of short lists."""

import re
from functools import cache
from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask, draw
from tools.guide_model.corpus.names import PEOPLE, TOWNS
from tools.guide_model.guide import read_guide

_WORDS = (
    "apple", "bread", "cat", "chair", "cloud", "coffee", "dog", "door", "eagle", "fish", "flower",
    "garden", "gold", "hat", "house", "island", "key", "king", "lamp", "lemon", "milk", "moon",
    "night", "ocean", "paper", "pear", "queen", "rain", "river", "salt", "stone", "sun", "table",
    "tree", "uncle", "violin", "water", "window", "yellow", "zebra",
)  # fmt: skip
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")

_REPEAT = (
    "Repeat: {}",
    "Repeat {}",
    "Repeat after me: {}",
    "Say: {}",
    "Echo: {}",
    "Copy this: {}",
)
_REVERSE = (
    "Reverse: {}",
    "Reverse {}",
    "Reverse the list {}",
    "Reverse the order of {}",
    "Write {} backwards.",
    "What is {} in reverse?",
)
_SORT = (
    "Sort: {}",
    "Sort {}",
    "Sort the list {}",
    "Put in order: {}",
    "Sort these: {}",
    "Arrange in order: {}",
)
_COUNT = (
    "Count: {}",
    "How many items are in {}?",
    "How many are there: {}",
    "Count the items: {}",
    "How many things are in the list {}?",
    "How long is the list {}?",
)
_OCCURRENCES = (
    "How many times does {item} occur in {items}?",
    "How often is {item} in {items}?",
    "Count {item} in {items}",
    "How many {item} are in {items}?",
)


def repeat(random: Random, split: Split) -> Example:
    """Returns words, letters and numbers of all kinds to say again.

    What it takes to copy a text that was never seen is what holes, calls and JSON need too.
    """

    def make() -> str:
        return " ".join(_anything(random) for _ in range(random.randint(1, 6)))

    text = draw(make, lambda made: ("repeat", made.lower()), split)
    return ask(_cased(random, random.choice(_REPEAT)).format(text), text)


def reverse(random: Random, split: Split) -> Example:
    """Returns letters, digits or words to write backwards."""
    items, separator = _items(random, split, "reverse", random.randint(3, 7))
    return _ask(random, _REVERSE, separator, items, separator.join(reversed(items)))


def sort(random: Random, split: Split) -> Example:
    """Returns letters or words for alphabetical order, or numbers, smallest first."""
    items, separator = _items(random, split, "sort", random.randint(3, 6), numbers=True)
    in_order = sorted(items, key=int) if items[0].isdigit() else sorted(items)
    return _ask(random, _SORT, separator, items, separator.join(in_order))


def count(random: Random, split: Split) -> Example:
    """Returns a list whose items, or whose items of one kind, are to be counted.

    The answer counts along: "p 1, u 2: 2", and of p alone "p 1, u 1, p 2: 2".
    """
    if random.random() < 0.4:
        items, separator = _items(random, split, "count", random.randint(2, 9))
        along = ", ".join(f"{item} {n}" for n, item in enumerate(items, 1))
        return _ask(random, _COUNT, separator, items, f"{along}: {len(items)}")

    def make() -> list[str]:
        kinds = random.sample(_LETTERS, 3)
        return [random.choice(kinds) for _ in range(random.randint(4, 9))]

    items = draw(make, lambda made: ("occurrences", *made), split)
    item = random.choice(items)
    text = _cased(random, random.choice(_OCCURRENCES))
    # A running count of the one item needs only the step before it; counts of all would not.
    along = ", ".join(f"{other} {items[:n].count(item)}" for n, other in enumerate(items, 1))
    answer = f"{along}: {items.count(item)}"
    return ask(text.format(item=item, items=" ".join(items)), answer)


def _items(
    random: Random, split: Split, name: str, n: int, *, numbers: bool = False
) -> tuple[list[str], str]:
    """Returns n different items, and what stands between them."""
    kind = random.choice(("letters", "digits", "words", "numbers" if numbers else "words"))

    def make() -> list[str]:
        if kind == "letters":
            return random.sample(_LETTERS, n)
        if kind == "digits":
            return [str(digit) for digit in random.sample(range(10), n)]
        if kind == "numbers":
            return [str(number) for number in random.sample(range(10, 100), n)]
        return random.sample(_WORDS, n)

    items = draw(make, lambda made: (name, *made), split)
    return items, ", " if kind == "words" else random.choice((" ", ", "))


def _anything(random: Random) -> str:
    """Returns a word of the guide, a name, a number, or letters that are no word."""
    match random.randrange(5):
        case 0 | 1:
            return random.choice(_guide_words())
        case 2:
            name = random.choice(PEOPLE + TOWNS)
            return random.choice((name, name.lower(), random.choice(_WORDS)))
        case 3:
            return str(random.randrange(10 ** random.randint(1, 5)))
        case _:
            return "".join(random.choices(_LETTERS, k=random.randint(1, 5)))


@cache
def _guide_words() -> tuple[str, ...]:
    """Returns the words of the guide's questions and answers."""
    texts = (text for topic in read_guide().topics for text in (topic.answer, *topic.questions))
    return tuple(sorted({word for text in texts for word in re.findall(r"[A-Za-z]+", text)}))


def _ask(
    random: Random, wordings: tuple[str, ...], separator: str, items: list[str], answer: str
) -> Example:
    return ask(_cased(random, random.choice(wordings)).format(separator.join(items)), answer)


def _cased(random: Random, text: str) -> str:
    return text[:1].lower() + text[1:] if random.random() < 0.3 else text
