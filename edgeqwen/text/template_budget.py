"""What rendering a template may cost: a number of steps, which every operation draws on.

Jinja's sandbox keeps a template away from the machine, but not from its time and memory:
``'a' * 10**9`` or two nested loops are enough. So each operation is charged before it runs (or,
where its result can't grow much, after it), in steps of at most about a microsecond.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeGuard, TypeVar

from jinja2.utils import Namespace

T = TypeVar("T")

# Enough for a thousand messages; spent in about a second by a hostile template.
BASE_STEPS = 1_000_000
# How often a template may handle every character and element of its input.
STEPS_PER_WEIGHT = 64
# Python's own numbers know no bounds; no template needs more than this.
MAX_BITS = 1024
MAX_DEPTH = 100

_CHARACTERS_PER_STEP = 16
_LEAVES = (str, int, float, bool, type(None))
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_NESTED: tuple[type, ...] = (list, tuple, dict, *_VIEWS)


class OverBudgetError(Exception):
    """The template takes too long or makes too much text."""


class Budget:
    """The steps that are left to one rendering."""

    __slots__ = ("depth", "left")

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.depth = 0

    def spend(self, steps: int) -> None:
        """Takes steps from the budget; OverBudgetError when there are too few."""
        self.left -= steps
        if self.left < 0:
            raise OverBudgetError

    def touch(self, *values: object) -> None:
        """Pays for handling values without looking into them: a copy of each at most."""
        self.spend(sum(map(size, values)))

    def walk(self, *values: object) -> None:
        """Pays for going through values to the bottom, as ``str``, ``==`` and ``tojson`` do.

        Lists that hold each other many times are small and yet endless to print: what is counted
        is the tree, and the count stops where the budget does.
        """
        self.spend(weight(values, limit=self.left))

    def text(self, n_characters: int) -> None:
        """Pays for making a text of this length."""
        self.spend(1 + n_characters // _CHARACTERS_PER_STEP)

    def search(self, text: object, pattern: object, *, backwards: bool = False) -> None:
        """Pays for finding a pattern in a text: at worst each character against each other.

        Forwards, Python's search is linear beyond patterns of about a thousand characters.
        """
        if isinstance(text, str) and isinstance(pattern, str):
            m = len(pattern) if backwards else min(len(pattern), 1250)
            self.spend(1 + (len(text) + len(text) * m // 128) // _CHARACTERS_PER_STEP)

    def counted(self, iterable: Iterable[T]) -> Iterator[T]:
        """Iterates and pays for every element."""
        for item in iterable:
            self.spend(1)
            yield item

    def number(self, value: T) -> T:
        """Returns the value; OverBudgetError for an integer that is too long."""
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise OverBudgetError
        return value


def is_nested(value: object) -> TypeGuard[Collection[Any]]:
    """Tells whether this is a collection whose elements are values themselves."""
    return isinstance(value, _NESTED)


def size(value: object) -> int:
    """Returns what a copy of the value costs in steps, not counting what its elements hold."""
    if type(value) is int:
        return 1
    if isinstance(value, str):
        return 1 + len(value) // _CHARACTERS_PER_STEP
    return 1 + len(value) if isinstance(value, range) or is_nested(value) else 1


def weight(values: Iterable[object], *, limit: int) -> int:
    """Returns what it costs to go through the values to the bottom, or a number above ``limit``."""
    stack: list[Any] = list(values)
    total = 0
    while stack and total <= limit:
        value = stack.pop()
        total += size(value)
        if type(value) in _LEAVES:
            continue
        if isinstance(value, dict):
            stack += value.keys()
            stack += value.values()
        elif isinstance(value, Namespace):
            stack.append(value._Namespace__attrs)
        elif is_nested(value):
            stack += value
    return total
