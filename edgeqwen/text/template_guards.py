"""Puts guards into a parsed template: what Jinja would run unseen becomes a call that is paid for.

Jinja's sandbox hands arithmetic, calls and attributes to the environment. Comparisons, ``~``,
slices and loops it compiles to bare Python; here they are rewritten, before that, into filters
whose names no template can write down in a filter expression.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jinja2 import Environment, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.visitor import NodeTransformer

from edgeqwen.text.template_budget import Budget
from edgeqwen.text.template_operators import compare, concatenate

_COMPARE, _CONCATENATE, _SLICE, _KEY, ITERATE, _TICK = (
    " compare",
    " concatenate",
    " slice",
    " key",
    " iterate",
    " tick",
)
# Inheritance and inclusion need other templates, and there are none.
_REFUSED = (nodes.Block, nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)
# Several times the largest that are known; more would take long to compile.
MAX_NODES = 10_000
_CHARACTERS_PER_STEP = 16
_NODES_PER_STEP = 2

Body = TypeVar("Body", nodes.For, nodes.Macro, nodes.CallBlock)


def add_guards(template: nodes.Template, environment: Environment) -> None:
    """Rewrites a parsed template in place; SecurityError for what it can't have."""
    refused = next(template.find_all(_REFUSED), None)
    if refused is not None:
        raise SecurityError(
            f"{{% {type(refused).__name__.lower()} %}} (line {refused.lineno}) needs other "
            "templates, and a model file has none"
        )
    n_nodes = sum(1 for _ in template.find_all(nodes.Node))
    if n_nodes > MAX_NODES:
        raise SecurityError(f"it has {n_nodes} parts, expected at most {MAX_NODES}")
    _Guards().visit(template)
    template.set_environment(environment)


class _Guards(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = _guard(node.iter, ITERATE)
        return _ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802
        self.generic_visit(node)
        return _ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:  # noqa: N802
        self.generic_visit(node)
        return _ticking(node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        rest: list[nodes.Expr] = []
        for operand in node.ops:
            rest += [nodes.Const(operand.op, lineno=node.lineno), operand.expr]
        return _guard(node.expr, _COMPARE, *rest)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _guard(nodes.List(node.nodes, lineno=node.lineno), _CONCATENATE)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        nothing = nodes.Const(None, lineno=node.lineno)
        ends = (node.arg.start, node.arg.stop, node.arg.step)
        return _guard(node.node, _SLICE, *(end or nothing for end in ends))

    def visit_Pair(self, node: nodes.Pair) -> nodes.Pair:  # noqa: N802
        self.generic_visit(node)
        node.key = _guard(node.key, _KEY)
        return node


def _guard(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


def _ticking(node: Body) -> Body:
    """Makes a body that may run often pay each time for what it holds."""
    n_nodes = sum(1 for _ in node.find_all(nodes.Node))
    n_characters = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
    steps = 1 + n_nodes // _NODES_PER_STEP + n_characters // _CHARACTERS_PER_STEP
    tick = _guard(nodes.Const(steps, lineno=node.lineno), _TICK)
    node.body = [nodes.ExprStmt(tick, lineno=node.lineno), *node.body]
    return node


def make_guards() -> dict[str, Callable[..., Any]]:
    """Returns the filters that ``add_guards`` puts in.

    A template can reach them as ``map(' tick')``: they hold for any arguments.
    """
    return {
        _COMPARE: _compare,
        _CONCATENATE: _concatenate,
        _SLICE: _slice,
        _KEY: _key,
        ITERATE: _iterate,
        _TICK: _tick,
    }


def _budget(context: Context) -> Budget:
    return context.environment.budget  # type: ignore[attr-defined, no-any-return]


@pass_context
def _compare(context: Context, left: Any, *rest: Any) -> Any:
    budget = _budget(context)
    result: Any = True
    for name, right in zip(rest[::2], rest[1::2], strict=True):
        result = compare(budget, name, left, right)
        if not result:
            break
        left = right
    return result


@pass_context
def _concatenate(context: Context, values: list[Any]) -> str:
    return concatenate(_budget(context), values)


@pass_context
def _slice(context: Context, value: Any, start: Any, stop: Any, step: Any) -> Any:
    _budget(context).touch(value)
    return value[slice(start, stop, step)]


@pass_context
def _key(context: Context, key: Any) -> Any:
    if not isinstance(key, str | int | float | Undefined | None):
        raise SecurityError(f"a {type(key).__name__} can't be the key of a mapping")
    return key


@pass_context
def _iterate(context: Context, values: Any) -> Any:
    budget = _budget(context)
    budget.touch(values)
    return budget.counted(values) if isinstance(values, Iterator) else values


@pass_context
def _tick(context: Context, steps: int) -> None:
    _budget(context).spend(max(1, int(steps)))
