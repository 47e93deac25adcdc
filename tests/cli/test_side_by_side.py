"""Two answers: where they differ, how that is told, and the columns at a terminal."""

import io
import re
from unittest import mock

import pytest
from rich.cells import cell_len
from rich.console import Console

from edgeqwen.cli.side_by_side import difference_line, first_difference, print_answers


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("", "", None), ("ab", "ab", None), ("ab", "ac", 1), ("ab", "abc", 2), ("a", "", 0)],
)
def test_first_difference(a: str, b: str, expected: int | None) -> None:
    assert first_difference(a, b) == first_difference(b, a) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("two cats", "two cats", "Both answers are the same."),
        # From the beginning of the word on.
        ("two cats", "two cars", "They differ from token 8 on: A goes on 'cats' and B goes on 'ca"),
        ("two", "twofold", "They differ from token 8 on: A goes on 'two' and B goes on 'twofold'"),
        ("two", "two cars", "They differ from token 8 on: A ends and B goes on ' cars'."),
        ("two ", "two cars", "They differ from token 8 on: A ends and B goes on 'cars'."),
        ("", "no", "They differ from token 8 on: A ends and B goes on 'no'."),
        ("a\nb", "a b", "They differ from token 8 on: A goes on '\\nb' and B goes on ' b'."),
        ("x" * 99, "y", f"They differ from token 8 on: A goes on '{'x' * 30} ...' and B goes on"),
        # Where no space tells where a word begins, some characters before have to do.
        ("今天" * 30, "今天" * 29 + "?", f"They differ from token 8 on: A goes on '{'今天' * 9}'"),
    ],
)
def test_the_sentence(a: str, b: str, expected: str) -> None:
    found = difference_line(a, b, 7)
    assert found.startswith(expected)
    assert found.endswith(".")


def shown(a: str, b: str, *, width: int = 61, terminal: bool = True) -> str:
    """Returns what is printed at a terminal of such a width, or without one."""
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=terminal, width=width, color_system="truecolor", highlight=False
    )
    with mock.patch("rich.console.Console", return_value=console), mock.patch("sys.stdout", stream):
        print_answers([a, b], n_same_tokens=3)
    return stream.getvalue()


BOLD, REVERSE, NORMAL = "\x1b[1m", "\x1b[7m", "\x1b[0m"


def test_without_a_terminal_one_stands_below_the_other() -> None:
    expected = (
        "A:\none two\nthree\n\nB:\none two\nfour\n\n"
        "They differ from token 4 on: A goes on 'three' and B goes on 'four'.\n"
    )
    assert shown("one two\nthree", "one two\nfour", terminal=False) == expected
    # And in a narrow one.
    assert shown("one two\nthree", "one two\nfour", width=59) == expected


def test_columns_mark_the_first_word_that_differs() -> None:
    head, row, *_ = shown("one two three", "one six three").splitlines()
    assert head.replace(NORMAL, "").split() == [f"{BOLD}A", BOLD, f"{BOLD}B"]
    left, right = row.split("one ")[1:]
    assert left.startswith(f"{REVERSE}two{NORMAL} three ")
    assert right.startswith(f"{REVERSE}six{NORMAL} three ")


@pytest.mark.parametrize(
    ("a", "b", "marks"),
    [
        ("one", "one more", [" ", " more"]),
        ("one ", "one more", [" ", "more"]),
        ("one more", "one", [" more", " "]),
        ("one", "ones", [" ", "s"]),
        ("", "x" * 20, [" ", "x" * 16]),
    ],
)
def test_an_end_is_marked_too(a: str, b: str, marks: list[str]) -> None:
    assert re.findall(rf"{re.escape(REVERSE)}(.*?){re.escape(NORMAL)}", shown(a, b)) == marks


def test_the_same_answers_have_no_mark() -> None:
    text = shown("one two", "one two")
    assert REVERSE not in text
    assert text.endswith("Both answers are the same.\n")


def test_columns_of_wide_characters_have_the_same_width() -> None:
    text = shown("今天天气很好，" * 9, "🙂 and\ttext " * 9, width=70)
    lines = text.splitlines()[1:-2]
    assert len(lines) > 3
    plain = [line.replace(REVERSE, "").replace(NORMAL, "") for line in lines]
    assert {cell_len(line) for line in plain} == {70}


def test_what_would_steer_the_terminal_is_shown() -> None:
    for terminal in (False, True):
        text = shown("\x1b[2J[red]bold[/red]", "x", terminal=terminal)
        assert "\x1b[2J" not in text
        assert "\\x1b[2J[red]" in text.replace("\n", "").replace(NORMAL, "")
