"""The environment that templates run in: Jinja's sandbox, with bounds on time and memory.

A template comes with a model file, from anywhere. It can read the values it is given, and their
harmless methods, and nothing else; and everything it does is charged to a budget of steps.
"""

import datetime
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Template, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaTemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from edgeqwen.text.template_budget import MAX_DEPTH, Budget, OverBudgetError, is_nested
from edgeqwen.text.template_filters import make_filters, make_tests, pay_replacement
from edgeqwen.text.template_guards import ITERATE, add_guards, make_guards
from edgeqwen.text.template_operators import ARITHMETIC, arithmetic

_SEARCHES = ("count", "find", "index", "partition", "removeprefix", "removesuffix", "split")
# These try every place, or every character, against the whole of their argument.
_SLOW_SEARCHES = ("lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip")
_TEXT_METHODS = frozenset(
    {
        *_SEARCHES,
        *_SLOW_SEARCHES,
        *("capitalize", "casefold", "endswith", "isalnum", "isalpha", "isascii", "isdecimal"),
        *("isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower"),
        *("replace", "splitlines", "startswith", "swapcase", "title", "upper"),
    }
)
_LIST_METHODS = frozenset({"count", "index"})
_ATTRIBUTES: tuple[tuple[type, frozenset[str]], ...] = (
    (str, _TEXT_METHODS),
    (dict, frozenset({"get", "items", "keys", "values"})),
    (list, _LIST_METHODS),
    (tuple, _LIST_METHODS),
    (
        LoopContext,
        frozenset({"changed", "cycle", "depth", "depth0", "first", "index", "index0", "last"})
        | {"length", "nextitem", "previtem", "revindex", "revindex0"},
    ),
    (Macro, frozenset({"arguments", "caller", "catch_kwargs", "catch_varargs", "name"})),
)
_SUBSCRIPTABLE = (dict, list, tuple, str, range, Undefined)
_MAX_FORMAT = 200
_STEPS_PER_CALL = 8


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Compiles and runs one template at a time. ``budget`` is set before each rendering.

    ``now`` is what the template's clock shows.
    """

    intercepted_binops = frozenset(ARITHMETIC)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
            # Folding constants would run the template's expressions while it is compiled.
            optimized=False,
            finalize=_shown,
            cache_size=0,
        )
        self.budget = Budget(0)
        self.now = datetime.datetime.now()
        self.filters: dict[str, Any] = {**make_filters(), **make_guards()}
        self.tests: dict[str, Any] = {**make_tests()}
        functions: dict[str, Callable[..., Any]] = {
            "dict": _mapping,
            "namespace": _namespace,
            "raise_exception": _raise_exception,
            "range": safe_range,
            "strftime_now": self._strftime_now,
        }
        self.globals.clear()
        self.globals.update(functions)
        self._functions = tuple(functions.values())

    def compile_guarded(
        self, source: str, change: Callable[[nodes.Template], None] | None = None
    ) -> Template:
        """Compiles a template; ``change`` may rewrite it between parsing and compiling.

        Raises whatever Jinja and Python raise for a source that can't be compiled.
        """
        tree = self.parse(source)
        if change is not None:
            change(tree)
        add_guards(tree, self)
        return self.template_class.from_code(self, self.compile(tree), self.globals)

    def run(self, template: Template, variables: Mapping[str, Any]) -> str:
        """Renders a template of this environment; its errors are raised as they are."""
        context = template.new_context(dict(variables))
        return "".join(self.budget.counted(template.root_render_func(context)))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Returns ``obj.attribute``: a harmless attribute, or else an element."""
        self.budget.spend(1)
        if self._has(obj, attribute):
            return getattr(obj, attribute)
        return self._element(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Returns ``obj[argument]``: an element, or else a harmless attribute."""
        self.budget.spend(1)
        found = self._element(obj, argument)
        if isinstance(found, Undefined) and isinstance(argument, str) and self._has(obj, argument):
            return getattr(obj, argument)
        return found

    def _has(self, obj: Any, attribute: str) -> bool:
        return any(attribute in names and isinstance(obj, kind) for kind, names in _ATTRIBUTES)

    def _element(self, obj: Any, key: Any) -> Any:
        if not isinstance(key, str | int | float | Undefined | None):
            # Not undefined: the message for that would print the key, however long that takes.
            raise SecurityError(f"a {type(key).__name__} can't be an index")
        if isinstance(obj, Namespace):
            if key in obj._Namespace__attrs:
                return obj._Namespace__attrs[key]
        elif isinstance(obj, _SUBSCRIPTABLE):
            try:
                return obj[key]  # type: ignore[index]
            except (TypeError, LookupError):
                pass
        return self.undefined(obj=obj, name=key)  # type: ignore[arg-type]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Returns the result of an arithmetic operator."""
        return arithmetic(self.budget, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Calls a macro, one of the environment's functions or a harmless method."""
        budget = __self.budget
        # What Jinja adds for functions that ask for the context; none of these does.
        for name in ("_block_vars", "_loop_vars"):
            kwargs.pop(name, None)
        if isinstance(__obj, Undefined):
            return __obj()
        if isinstance(__obj, Macro | LoopContext):
            budget.spend(_STEPS_PER_CALL + len(args) + len(kwargs))
            if isinstance(__obj, LoopContext) and args:
                args = (__self.call_filter(ITERATE, args[0], context=__context), *args[1:])
            budget.depth += 1
            if budget.depth > MAX_DEPTH:
                raise OverBudgetError
            result = __context.call(__obj, *args, **kwargs)
            budget.depth -= 1
        else:
            args = __self._pay_call(__obj, args, kwargs)
            result = __context.call(__obj, *args, **kwargs)
        budget.touch(result)
        return result

    def _pay_call(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Pays for a call in advance; SecurityError for what templates mustn't call."""
        budget = self.budget
        if any(function is known for known in self._functions):
            budget.walk(args, kwargs)
            return args
        if not isinstance(function, types.BuiltinMethodType | types.MethodType):
            raise SecurityError(f"a {type(function).__name__} can't be called")
        owner, name = function.__self__, function.__name__
        if not self._has(owner, name):
            raise SecurityError(f"{name}() of a {type(owner).__name__} can't be called")
        if name == "join" and args and isinstance(args[0], Iterator):
            args = (list(args[0]), *args[1:])
        budget.walk(args, kwargs)
        if isinstance(owner, str):
            _pay_text_method(budget, owner, name, (*args, *kwargs.values()))
        elif isinstance(owner, list | tuple):
            budget.walk(owner)
        return args

    def _strftime_now(self, format: str) -> str:
        if len(format) > _MAX_FORMAT:
            raise SecurityError(f"a date format of {len(format)} characters is too long")
        return self.now.strftime(format)


def _pay_text_method(budget: Budget, text: str, name: str, args: Sequence[Any]) -> None:
    budget.touch(text)
    if name == "join" and args and (is_nested(args[0]) or isinstance(args[0], str)):
        budget.text(len(text) * len(args[0]))
    elif name == "replace" and all(isinstance(arg, str) for arg in args[:2]) and len(args) > 1:
        pay_replacement(budget, text, args[0], args[1])
    elif name in _SEARCHES or name in _SLOW_SEARCHES:
        for arg in args:
            budget.search(text, arg, backwards=name in _SLOW_SEARCHES)


@pass_context
def _shown(context: Context, value: Any) -> Any:
    """Pays for what a template puts out."""
    context.environment.budget.walk(value)  # type: ignore[attr-defined]
    return value


def _mapping(*args: dict[Any, Any], **kwargs: Any) -> dict[Any, Any]:
    if not all(isinstance(arg, dict) for arg in args):
        raise SecurityError("dict() takes keyword arguments and mappings only")
    return {key: value for arg in (*args, kwargs) for key, value in arg.items()}


def _namespace(*args: dict[Any, Any], **kwargs: Any) -> Namespace:
    return Namespace(_mapping(*args, **kwargs))


def _raise_exception(message: Any) -> None:
    raise RefusedError(str(message))


class RefusedError(JinjaTemplateError):
    """The template itself finds fault with the conversation."""


class _GenerationTag(Extension):
    """``{% generation %}`` marks answers for training; for rendering it means nothing."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
