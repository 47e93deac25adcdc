"""Markup for HTML and SVG: a type of text that only escaping and elements make."""

import html
from collections.abc import Iterable
from typing import NewType

from edgeqwen.config_keys import printable

Markup = NewType("Markup", str)
"""Text that a page may hold as it is; mypy keeps every other out."""

# Elements of HTML that have no content, and no end tag.
_VOID = {"meta"}


def text(value: str) -> Markup:
    """Returns any text as a page may hold it: escaped, and without characters that don't show."""
    return Markup(html.escape(printable(value, len(value))))


def element(tag: str, *content: Markup, attributes: dict[str, str | float] | None = None) -> Markup:
    """Returns an element; its tag and the names of its attributes are the program's own."""
    start = "".join(f' {name}="{_value(value)}"' for name, value in (attributes or {}).items())
    return Markup(f"<{tag}{start}>" + ("" if tag in _VOID else f"{''.join(content)}</{tag}>"))


def joined(parts: Iterable[Markup]) -> Markup:
    """Returns one after the other, on lines of their own."""
    return Markup("\n".join(parts))


def _value(value: str | float) -> str:
    """Returns an attribute's value; numbers are lengths, to a tenth of a pixel."""
    return text(value) if isinstance(value, str) else f"{round(value, 1):g}"
