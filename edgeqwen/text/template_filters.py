"""The filters and tests that templates may use: Jinja's own, each paid for from the budget.

Only those that make sense in a chat template are offered. Left out are the ones that lay out web
pages, and those whose result can grow without measure (center, format, batch, wordwrap and such).
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.tests import TESTS

from edgeqwen.text.template_budget import Budget, OverBudgetError, weight
from edgeqwen.text.template_operators import COMPARE, compare

Filter = Callable[..., Any]

# Filters that look at values from outside.
_TOUCHING = ("abs", "count", "d", "default", "first", "last", "length", "reverse")
# Filters that hand out the elements of a value, one by one.
_HANDING_OUT = ("items", "map", "reject", "rejectattr", "select", "selectattr")
# Filters that go through a value to the bottom.
_DEEP = (*("capitalize", "e", "escape", "float", "lower", "safe", "string", "title", "upper"),)
_MAX_INDENT = 16
_MAX_DIGITS = 300
_STEPS_PER_CALL = 4


def make_filters() -> dict[str, Filter]:
    """Returns the filters by name; each takes the budget from the environment it runs in."""
    jinja: dict[str, Any] = FILTERS
    filters = {name: _paid(jinja[name], _touch) for name in _TOUCHING}
    filters |= {name: _paid(jinja[name], _hand_out) for name in _HANDING_OUT}
    filters |= {name: _paid(jinja[name], _walk) for name in _DEEP}
    filters |= {name: _paid(jinja[name], pay) for name, pay in _SPECIAL.items()}
    return filters | {"tojson": _to_json}


def make_tests() -> dict[str, Filter]:
    """Returns Jinja's tests by name, the comparisons among them paid for."""
    jinja: dict[str, Any] = TESTS
    operators = {function: operator for operator, function in COMPARE.items()}
    tests = {
        name: _comparison(operators[test]) if test in operators else _paid(test, _touch)
        for name, test in jinja.items()
    }
    tests |= {name: _paid(jinja[name], _walk) for name in ("filter", "lower", "test", "upper")}
    tests |= {name: _paid(jinja[name], _numbers) for name in ("divisibleby", "even", "odd")}
    return tests | {"in": _comparison("in")}


def _paid(function: Filter, pay: Callable[..., None]) -> Filter:
    """Puts the payment before a filter and counts what comes out."""
    kind = getattr(function, "jinja_pass_arg", None)
    leading = kind.name if kind is not None else None

    @pass_context
    def paid(context: Context, value: Any = None, *args: Any, **kwargs: Any) -> Any:
        budget = _budget(context)
        if isinstance(value, Iterator) and pay not in (_touch, _hand_out):
            value = list(value)
        budget.spend(_STEPS_PER_CALL)
        pay(budget, value, *args, **kwargs)
        if leading == "context":
            result = function(context, value, *args, **kwargs)
        elif leading == "eval_context":
            result = function(context.eval_ctx, value, *args, **kwargs)
        elif leading == "environment":
            result = function(context.environment, value, *args, **kwargs)
        else:
            result = function(value, *args, **kwargs)
        if isinstance(result, Iterator):
            return budget.counted(result)
        budget.touch(result)
        return budget.number(result)

    return paid


def _touch(budget: Budget, *args: Any, **kwargs: Any) -> None:
    budget.touch(*args, *kwargs.values())


def _hand_out(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    budget.touch(value)
    budget.walk(args, kwargs)


def _numbers(budget: Budget, *args: Any) -> None:
    # These use '%', which formats texts.
    if not all(isinstance(arg, int | float) for arg in args):
        raise SecurityError("only a number can be tested for what divides it")


def _walk(budget: Budget, *args: Any, **kwargs: Any) -> None:
    budget.walk(args, kwargs)


def _iterate(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    # A text becomes characters, each an object.
    budget.spend(len(value) if isinstance(value, str) else 0)
    budget.walk(value, args, kwargs)


def _sort(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    # About log2(n) comparisons for each element.
    for _ in range(4):
        _iterate(budget, value, args, kwargs)


def _list(budget: Budget, value: Any) -> None:
    budget.spend(len(value) if isinstance(value, str) else 0)
    budget.touch(value)


def _join(budget: Budget, value: Any, d: Any = "", attribute: Any = None) -> None:
    _iterate(budget, value, d, attribute)
    n = len(value) if hasattr(value, "__len__") else 0
    budget.text(n * (len(d) if isinstance(d, str) else 1))


def _replace(budget: Budget, value: Any, old: Any, new: Any, count: Any = None) -> None:
    budget.walk(value, old, new)
    pay_replacement(budget, str(value), str(old), str(new))


def pay_replacement(budget: Budget, text: str, old: str, new: str) -> None:
    """Pays for ``text.replace(old, new)``, which may make a text of the product of two lengths."""
    budget.search(text, old)
    count = text.count(old) if old else len(text) + 1
    budget.text(len(text) + count * len(new))


def _trim(budget: Budget, value: Any, chars: Any = None) -> None:
    budget.walk(value, chars)
    budget.search(str(value), chars, backwards=True)


def _indent(budget: Budget, s: Any, width: Any = 4, first: Any = False, blank: Any = False) -> None:
    budget.walk(s, width)
    n = len(width) if isinstance(width, str) else int(width)
    budget.text(max(n, 0) * (1 + str(s).count("\n")))


def _int(budget: Budget, value: Any, default: Any = 0, base: Any = 10) -> None:
    budget.walk(value)
    # Reading a number takes the square of its length.
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        raise OverBudgetError


def _comparison(operator: str) -> Filter:
    @pass_context
    def test(context: Context, value: Any, other: Any) -> Any:
        return compare(_budget(context), operator, value, other)

    return test


def _budget(context: Context) -> Budget:
    return context.environment.budget  # type: ignore[attr-defined, no-any-return]


_SPECIAL: dict[str, Callable[..., None]] = {
    "dictsort": _sort,
    "indent": _indent,
    "int": _int,
    "join": _join,
    "list": _list,
    "max": _iterate,
    "min": _iterate,
    "replace": _replace,
    "sort": _sort,
    "trim": _trim,
    "unique": _iterate,
}


@pass_context
def _to_json(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face's templates expect it: Unicode as it is, and no escapes for HTML."""
    budget = _budget(context)
    budget.walk(value, separators)
    if separators is not None:
        n_characters = sum(len(text) for text in separators)
        budget.text(n_characters * weight([value], limit=budget.left))
    options: dict[str, Any] = {
        "ensure_ascii": ensure_ascii,
        "separators": separators,
        "sort_keys": sort_keys,
    }
    if indent is None:
        text = json.dumps(value, **options)
        budget.text(len(text))
        return text
    if (len(indent) if isinstance(indent, str) else indent) > _MAX_INDENT:
        raise OverBudgetError
    chunks = []
    # In pieces: indented lines of deeply nested lists grow with the square of their number.
    for chunk in json.JSONEncoder(indent=indent, **options).iterencode(value):
        budget.text(len(chunk))
        chunks.append(chunk)
    return "".join(chunks)
