"""Two answers next to each other, and where they begin to differ."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeqwen.cli.terminal import clean, clean_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# In narrower terminals, and where there is none, one answer stands below the other.
_MIN_WIDTH = 60
# Characters of each answer that are quoted from the first difference on.
_MAX_QUOTE = 30
# Scripts without spaces have no end of words.
_MAX_WORD = 16
_WORD = re.compile(rf"\s*\S{{1,{_MAX_WORD}}}")
_END_OF_WORD = re.compile(r"\S+\Z")


def print_answers(texts: Sequence[str], *, n_same_tokens: int) -> None:
    """Prints the answers of A and B and what is the same in them.

    ``n_same_tokens``: how many tokens they have in common at their beginning.
    """
    from rich.console import Console

    a, b = (clean(text) for text in texts)
    console = Console(highlight=False)
    if console.is_terminal and not console.is_dumb_terminal and console.width >= _MIN_WIDTH:
        _print_columns(console, a, b)
    else:
        print(f"A:\n{a}\n\nB:\n{b}\n")
    print(difference_line(a, b, n_same_tokens), flush=True)


def first_difference(a: str, b: str) -> int | None:
    """Returns the place of the first character that differs; None for texts that are the same.

    Where one text is the beginning of the other, it is the place behind its end.
    """
    if a == b:
        return None
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def difference_line(a: str, b: str, n_same_tokens: int) -> str:
    """Returns a sentence that tells where two answers begin to differ."""
    at = first_difference(a, b)
    if at is None:
        return "Both answers are the same."
    if not all(_is_end_of_word(text, at) for text in (a, b)):
        at = _word_begin(a, at)
    goes_on = " and ".join(f"{name} {_quote(text[at:])}" for name, text in (("A", a), ("B", b)))
    return f"They differ from token {n_same_tokens + 1} on: {goes_on}."


def _quote(rest: str) -> str:
    if not rest:
        return "ends"
    quoted = clean_line(rest.replace("\n", "\\n"))
    end = " ..." if len(quoted) > _MAX_QUOTE else ""
    return f"goes on '{quoted[:_MAX_QUOTE]}{end}'"


def _is_end_of_word(text: str, at: int) -> bool:
    return at == len(text) or text[at].isspace()


def _word_begin(text: str, at: int) -> int:
    """Returns where the word begins that reaches to a place, some characters before at most."""
    found = _END_OF_WORD.search(text, max(0, at - _MAX_WORD), at)
    return found.start() if found else at


def _print_columns(console: "Console", a: str, b: str) -> None:
    """Prints two columns of the same width."""
    from rich.table import Table

    table = Table(box=None, expand=True, padding=(0, 3, 0, 0), pad_edge=False)
    at = first_difference(a, b)
    for name in "AB":
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*(_marked(text, at) for text in (a, b)))
    console.print(table)
    console.print()


def _marked(text: str, at: int | None) -> "Text":
    """Returns the text with the word, or the rest of one, that begins at a place in reverse."""
    from rich.text import Text

    marked = Text(text)
    if at is not None:
        found = _WORD.match(text, at)
        end = found.end() if found else len(text)
        if not text[at:end].strip():
            # Neither the end of a text nor of a line could be seen otherwise.
            marked.append(" ")
            end += 1
        marked.stylize("reverse", at, end)
    return marked
