"""The operators of templates, each paid for from the budget before it runs."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

from edgeqwen.text.template_budget import MAX_BITS, Budget, OverBudgetError, is_nested, size

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda item, collection: item in collection,
    "notin": lambda item, collection: item not in collection,
}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}


def compare(budget: Budget, name: str, left: Any, right: Any) -> Any:
    """Returns ``left <name> right``, with Jinja's names of the operators."""
    if name in ("in", "notin") and isinstance(right, Iterator):
        # So that what the elements weigh is known before they are compared.
        right = list(right)
    pay_comparison(budget, name, left, right)
    return COMPARE[name](left, right)


def pay_comparison(budget: Budget, name: str, left: Any, right: Any) -> None:
    """Pays for a comparison: for as much as both sides have in common, at most."""
    if name in ("in", "notin"):
        _pay_membership(budget, left, right)
    elif is_nested(left) and is_nested(right):
        budget.walk(left)
    else:
        budget.spend(min(size(left), size(right)))


def _pay_membership(budget: Budget, item: Any, collection: Any) -> None:
    if isinstance(collection, str):
        budget.search(collection, item)
    elif isinstance(collection, dict | Undefined):
        budget.walk(item)
    elif isinstance(collection, range) or is_nested(collection):
        # The item meets each element, at the cost of the lighter of the two; or it is hashed.
        if is_nested(item):
            budget.walk(item, collection)
        else:
            budget.spend(1 + len(collection) * size(item))
    else:
        raise SecurityError(f"'in' can't look into a {type(collection).__name__}")


def arithmetic(budget: Budget, name: str, left: Any, right: Any) -> Any:
    """Returns ``left <name> right`` for numbers, texts and lists."""
    budget.touch(left, right)
    if name == "*":
        _pay_product(budget, left, right)
        _pay_product(budget, right, left)
    elif name == "%" and isinstance(left, str):
        # A width in the format makes as much text as it likes.
        raise SecurityError("'%' can't format text here; '~' and the filters are there for that")
    elif name == "**":
        _pay_power(left, right)
    elif name != "+" and (is_nested(left) or is_nested(right)):
        # The views of mappings can be subtracted, which would hash whatever is in them.
        raise SecurityError(f"'{name}' takes numbers only")
    return budget.number(ARITHMETIC[name](left, right))


def concatenate(budget: Budget, values: list[Any]) -> str:
    """Returns the texts of the values, one behind the other."""
    budget.walk(values)
    return "".join(map(str, values))


def _pay_product(budget: Budget, left: Any, right: Any) -> None:
    if isinstance(right, int) and isinstance(left, str):
        budget.text(len(left) * max(right, 0))
    elif isinstance(right, int) and isinstance(left, list | tuple):
        budget.spend(len(left) * max(right, 0))


def _pay_power(base: Any, exponent: Any) -> None:
    both = isinstance(base, int) and isinstance(exponent, int)
    if both and base.bit_length() * exponent > 4 * MAX_BITS:
        raise OverBudgetError
