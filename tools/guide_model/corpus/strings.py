"""Reverse, sort and count the items of short lists."""

from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask, draw

_WORDS = (
    "apple", "bread", "chair", "cloud", "dog", "door", "eagle", "fish", "flower", "garden",
    "glass", "hat", "house", "ink", "island", "jacket", "key", "king", "lamp", "lemon",
    "moon", "mouse", "night", "nose", "ocean", "orange", "paper", "pear", "queen", "rain",
    "river", "rose", "salt", "stone", "sun", "table", "tree", "uncle", "violin", "water",
    "window", "yellow", "zebra", "red", "green", "blue", "black", "white", "cat", "bird",
    "milk", "tea", "coffee", "sugar", "north", "south", "east", "west", "gold", "silver",
)  # fmt: skip
_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")

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
    """Returns a list whose items, or whose items of one kind, are to be counted."""
    if random.random() < 0.6:
        items, separator = _items(random, split, "count", random.randint(2, 9))
        return _ask(random, _COUNT, separator, items, str(len(items)))

    def make() -> list[str]:
        kinds = random.sample(_LETTERS, 3)
        return [random.choice(kinds) for _ in range(random.randint(4, 9))]

    items = draw(make, lambda made: ("occurrences", *made), split)
    item = random.choice(items)
    text = _cased(random, random.choice(_OCCURRENCES))
    return ask(text.format(item=item, items=" ".join(items)), str(items.count(item)))


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


def _ask(
    random: Random, wordings: tuple[str, ...], separator: str, items: list[str], answer: str
) -> Example:
    return ask(_cased(random, random.choice(wordings)).format(separator.join(items)), answer)


def _cased(random: Random, text: str) -> str:
    return text[:1].lower() + text[1:] if random.random() < 0.3 else text
