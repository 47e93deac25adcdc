"""The messages of a conversation as a session keeps them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeqwen.errors import SessionError, TemplateError
from edgeqwen.transcript import Transcript

text = st.text()
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**1000), 2**1000)
    | st.floats(allow_nan=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)
messages = st.lists(
    st.fixed_dictionaries({"role": text, "content": text}, optional={"tool_calls": plain}),
    max_size=4,
)


@given(
    messages, st.integers(0, 4), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2**64)))
)
def test_messages_are_read_as_they_were_written(
    messages: list[dict[str, Any]], first_kept: int, answers: list[tuple[int, int]]
) -> None:
    transcript = Transcript(messages, min(first_kept, len(messages)), tuple(answers))
    assert Transcript.decode(transcript.encode(), "x") == transcript


def test_halves_of_characters_come_back() -> None:
    messages = [{"role": "user", "content": "a\ud800b"}]  # as names of files may have them
    assert Transcript.decode(Transcript(messages).encode(), "x").messages == messages


def test_nothing_is_no_messages() -> None:
    assert Transcript.decode(b"", "x") == Transcript([])


def test_an_answer_that_was_broken_off_is_the_last_message() -> None:
    asked = [{"role": "user", "content": "why?"}]
    # The second is where it will begin once a token of the prompt is forgotten.
    transcript = Transcript(asked, answers=((3, 7), (2, 8)))
    assert transcript.answer_tokens([1, 2, 3, 4, 5], 7) == [4, 5]
    assert transcript.answer_tokens([1, 2, 3], 7) == []
    assert transcript.answer_tokens([1, 3, 4, 5], 8) == [4, 5]
    assert transcript.answer_tokens([1, 2, 3, 4, 5], 9) == []  # other tokens are there by now
    assert Transcript(asked).answer_tokens([1, 2, 3], 0) == []
    assert transcript.restored(None) == asked
    assert transcript.restored("be") == [*asked, {"role": "assistant", "content": "be"}]
    assert len(asked) == 1


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"messages\[0\].content is of type object"):
        Transcript([{"role": "user", "content": object()}]).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe\xfd",
        b"{",
        b"[]",
        b"{}",
        b"3",
        b"[" * 100_000,
        json.dumps({"version": 2, "messages": []}).encode(),
        json.dumps({"version": 1, "messages": [{"content": "no role"}]}).encode(),
        json.dumps({"version": 1, "messages": "text"}).encode(),
        json.dumps({"version": 1, "messages": [], "answers": []}).encode(),
        json.dumps({"version": 1, "messages": [], "first_kept": 1, "answers": []}).encode(),
        json.dumps({"version": 1, "messages": [], "first_kept": 0, "answers": {"x": 1}}).encode(),
        json.dumps({"version": 1, "messages": [], "first_kept": 0, "answers": [[-1, 2]]}).encode(),
        b'{"version": 1, "messages": [{"role": "user", "content": ' + b"9" * 5000 + b"}]}",
    ],
)
def test_anything_else_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(SessionError, match=r"^a/b: its messages can't be read: .*; begin a new"):
        Transcript.decode(data, "a/b")
