"""Keeps a template's own special tokens apart from what people typed.

Every ``<|im_end|>`` in the template's own text is replaced by a mark that nobody can guess; then
the template is rendered with what people typed left as it is. In the result the marks are special
tokens, and everything else is text. A template may compare and cut what people typed as it
likes; should it do so with its own marked text, the result shows it (see ``ChatTemplate``).
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import nodes

# Where a literal is looked at and not put out: there it stays as it is.
_LOOKED_AT: dict[type[nodes.Node], tuple[str, ...]] = {
    nodes.Compare: ("expr", "ops"),
    nodes.CondExpr: ("test",),
    nodes.For: ("test",),
    nodes.Getitem: ("arg",),
    nodes.If: ("test",),
    nodes.Test: ("node", "args", "kwargs"),
}
# The only filters and methods whose arguments end up in the text.
_PASSING = ("d", "default", "join")


class Marks:
    """Marks for the special tokens of one vocabulary, different ones in every process."""

    def __init__(self, special: Mapping[str, int], spoken: Mapping[str, int]) -> None:
        """``special``: ids by text; ``spoken``: those of them that are part of answers."""
        self._special = special
        self._texts = list(special)
        # Private-use characters: no filter takes them for a space or a letter.
        self._nonce = f"\ue000{secrets.token_hex(8)}:"
        self._mark = re.compile(self._nonce + r"(\d+)\ue001")
        self._any = _pattern(special)
        self._spoken = _pattern(spoken)

    def mark(self, text: str) -> str:
        """Returns the text with marks for special tokens."""
        return self._any.sub(self._marked, text)

    def mark_spoken(self, text: str) -> str:
        """Returns the text with marks for the special tokens that are part of answers."""
        return self._spoken.sub(self._marked, text)

    def _marked(self, match: re.Match[str]) -> str:
        return f"{self._nonce}{self._texts.index(match.group())}\ue001"

    def restore(self, marked: str) -> str:
        """Returns the text as it is without marks."""
        return self._mark.sub(lambda match: self._texts[int(match.group(1))], marked)

    def split(self, marked: str) -> Iterator[tuple[str, int | None]]:
        """Yields each stretch of text and the id of the special token after it, or None."""
        pieces = self._mark.split(marked)
        for text, number in zip(pieces[::2], [*pieces[1::2], None], strict=True):
            yield text, None if number is None else self._special[self._texts[int(number)]]

    def mark_template(self, template: nodes.Template) -> None:
        """Puts marks into the literals of a parsed template, in place."""
        _mark_literals(template, self.mark)


def _pattern(special: Mapping[str, int]) -> re.Pattern[str]:
    longest_first = sorted(special, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _mark_literals(node: nodes.Node, mark: Callable[[str], str]) -> None:
    if isinstance(node, nodes.TemplateData):
        node.data = mark(node.data)
    elif isinstance(node, nodes.Const) and isinstance(node.value, str):
        node.value = mark(node.value)
    skipped = _looked_at(node)
    for name, value in node.iter_fields():
        if name in skipped:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, nodes.Node):
                _mark_literals(child, mark)


def _looked_at(node: nodes.Node) -> Sequence[str]:
    """Returns the names of a node's parts whose literals don't become part of the text."""
    arguments = ("args", "kwargs", "dyn_args", "dyn_kwargs")
    if isinstance(node, nodes.Filter):
        return () if node.name in _PASSING else arguments
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        return () if node.node.attr in _PASSING else arguments
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
        return arguments if node.node.name in ("raise_exception", "strftime_now") else ()
    if isinstance(node, nodes.Pair):
        return ("key",)
    return _LOOKED_AT.get(type(node), ())


def all_texts(value: Any) -> Iterator[str]:
    """Yields every string in nested lists and mappings, keys among them."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack += value.keys()
            stack += value.values()
        elif isinstance(value, list):
            stack += value
