"""Stop strings: cut exactly, nothing of them shown, whatever the pieces."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.stop_strings import StopStrings


def run(pieces: list[str], stops: list[str]) -> tuple[list[str], str | None]:
    cutter = StopStrings(stops)
    shown = [cutter.push(piece) for piece in pieces]
    return [*shown, cutter.flush()], cutter.found


@pytest.mark.parametrize(
    ("pieces", "stops", "shown", "found"),
    [
        (["Hello", " world"], [], "Hello world", None),
        (["Hello", " world"], ["o w"], "Hell", "o w"),
        (["a", "b", "c", "d"], ["bcd"], "a", "bcd"),
        (["ab", "ab", "ac"], ["abac"], "ab", "abac"),
        (["### ", "#"], ["####"], "### #", None),
        (["stop"], ["stop"], "", "stop"),
        # The one that is complete first wins, not the one that begins first.
        (["abc"], ["abcd", "b"], "a", "b"),
        (["abcd"], ["abcd", "b"], "a", "b"),
        # Of two that end together, the longest is cut off.
        (["xabc"], ["c", "abc"], "x", "abc"),
        (["à", "é\n", "\nü"], ["\n\n"], "àé", "\n\n"),
    ],
)
def test_cuts_at_the_first_complete_stop_string(
    pieces: list[str], stops: list[str], shown: str, found: str | None
) -> None:
    texts, stop = run(pieces, stops)
    assert ("".join(texts), stop) == (shown, found)


def test_text_is_held_back_only_while_it_may_be_a_stop_string() -> None:
    assert run(["a<", "|im", "x<|", "b"], ["<|im_end|>"])[0] == ["a", "", "<|imx", "<|b", ""]


def test_ignores_what_comes_after_a_stop_string() -> None:
    assert run(["one.", "two"], ["."])[0] == ["one", "", ""]


@settings(deadline=None, max_examples=200)
@given(
    text=st.text("ab\n", max_size=30),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    borders=st.sets(st.integers(0, 30)),
)
def test_the_cut_does_not_depend_on_the_pieces(
    text: str, stops: list[str], borders: set[int]
) -> None:
    at = sorted({0, len(text), *(b for b in borders if b < len(text))})
    pieces = [text[i:j] for i, j in itertools.pairwise(at)]
    texts, found = run(pieces, stops)
    # The rule spelled out: the shortest beginning of the text that ends with a stop string.
    ends = [n for n in range(len(text) + 1) if text[:n].endswith(tuple(stops) or "\0")]
    if not ends:
        assert ("".join(texts), found) == (text, None)
        return
    stop = max((s for s in stops if text[: ends[0]].endswith(s)), key=len)
    assert ("".join(texts), found) == (text[: ends[0] - len(stop)], stop)
