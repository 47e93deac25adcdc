"""Conversations in session files, on the real engine."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeqwen
from edgeqwen.cache.session_copies import reading
from edgeqwen.cache.verify import verify
from edgeqwen.errors import (
    OptionError,
    SessionError,
    SessionLockedError,
)
from edgeqwen.session_files import delete, messages
from tests.session_chats import QUESTIONS, chat_of, fresh_answer


@pytest.fixture(scope="module")
def model() -> Iterator[edgeqwen.Model]:
    with edgeqwen.load(n_threads=2) as model:
        yield model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session"


def test_options_about_no_session_are_refused(model: edgeqwen.Model) -> None:
    for option in ("rebuild", "fork"):
        with pytest.raises(OptionError, match="rebuild and fork are about a session"):
            model.chat(**{option: True})  # type: ignore[arg-type]


def test_a_conversation_goes_on_after_it_was_closed(model: edgeqwen.Model, path: Path) -> None:
    whole, chat = chat_of(model), chat_of(model, path)
    assert chat.session == path
    for question in QUESTIONS:
        expected = whole.send(question, max_tokens=40)
        found = chat.send(question, max_tokens=40)
        assert found.text == expected.text
        assert found.stats.n_reused == expected.stats.n_reused
        chat.close()
        chat = chat_of(model, path)
        assert chat.messages == whole.messages
    assert chat.messages[0]["content"] == QUESTIONS[0]
    chat.close()
    assert verify(path).problems == ()


def test_a_closed_chat_opens_its_session_again(model: edgeqwen.Model, path: Path) -> None:
    chat = chat_of(model, path)
    first = chat.send(QUESTIONS[0], max_tokens=20).text
    chat.close()
    with contextlib.closing(chat_of(model, path)) as other:
        assert other.messages[-1]["content"] == first
        with pytest.raises(SessionLockedError):
            chat.send("more").text  # noqa: B018
    assert chat.send("more", max_tokens=3).stats.n_reused > 20
    chat.close()


def test_only_what_changed_is_computed(model: edgeqwen.Model, path: Path) -> None:
    chat = chat_of(model, path)
    for question in QUESTIONS:
        list(chat.send(question, max_tokens=30))
    prompt = len(model.chat_template.encode(model.tokenizer, chat.messages[:-1]))

    again = chat.regenerate(max_tokens=30, temperature=0.9, seed=3)
    other = again.text
    assert (again.stats.n_prompt, again.stats.n_reused) == (prompt, prompt - 1)
    assert other == fresh_answer(model, chat.messages[:-1], max_tokens=30, temperature=0.9, seed=3)
    assert len(chat.messages) == 6

    n_before = len(chat.messages[:2])
    edited = chat.edit(2, "12+30", max_tokens=30)
    assert edited.text == fresh_answer(model, chat.messages[:-1], max_tokens=30)
    assert len(chat.messages) == n_before + 2
    assert 0 < edited.stats.n_reused < edited.stats.n_prompt
    assert edited.stats.n_prompt - edited.stats.n_reused < 20

    chat.truncate(2)
    follow = chat.send("37+48", max_tokens=30)
    assert follow.text == fresh_answer(model, chat.messages[:-1], max_tokens=30)
    assert follow.stats.n_prompt - follow.stats.n_reused < 20
    messages = chat.messages
    chat.close()
    chat = chat_of(model, path)
    assert chat.messages == messages
    chat.close()
    assert verify(path).problems == ()


def test_what_can_not_be_changed_is_refused(model: edgeqwen.Model, path: Path) -> None:
    chat = chat_of(model, path)
    with pytest.raises(OptionError, match="there is no message to answer"):
        chat.regenerate()
    list(chat.send(QUESTIONS[1], max_tokens=3))
    for index in (1, 2, -1, -3):
        with pytest.raises(OptionError, match=r"is no message of the user: these are \[0\]"):
            chat.edit(index, "x")
    for n in (-1, 3):
        with pytest.raises(OptionError, match=f"can't keep {n} messages: there are 2"):
            chat.truncate(n)
    assert chat.edit(-2, "1+1", max_tokens=3).text
    chat.close()


def test_forks_go_on_apart(model: edgeqwen.Model, path: Path) -> None:
    chat = chat_of(model, path)
    list(chat.send(QUESTIONS[0], max_tokens=30))
    fork = chat.fork()
    assert fork.session is None
    before = [dict(message) for message in chat.messages]
    answer = fork.send(QUESTIONS[1], max_tokens=30)
    assert answer.text == fresh_answer(model, fork.messages[:-1], max_tokens=30)
    assert answer.stats.n_prompt - answer.stats.n_reused < 20
    assert chat.messages == before
    assert chat.send(QUESTIONS[2], max_tokens=30).text == fresh_answer(
        model, chat.messages[:-1], max_tokens=30
    )
    # Of the file, while it is open.
    beside = chat_of(model, path, fork=True)
    assert beside.session is None
    assert beside.messages == chat.messages
    assert beside.send("37+48", max_tokens=9).text == chat.send("37+48", max_tokens=9).text
    chat.close()


def test_a_system_prompt_replaces_that_of_the_session(model: edgeqwen.Model, path: Path) -> None:
    chat = chat_of(model, path, system="Be brief.")
    list(chat.send("37+48", max_tokens=3))
    chat.close()
    chat = chat_of(model, path, system="Be long.")
    assert [m["content"] for m in chat.messages][:2] == ["Be long.", "37+48"]
    chat.close()


def test_messages_are_kept_as_they_are_when_a_chat_is_closed(
    model: edgeqwen.Model, path: Path
) -> None:
    chat = chat_of(model, path)
    list(chat.send("37+48", max_tokens=5))
    chat.messages[0]["content"] = "12+30"
    chat.messages.append({"role": "user", "content": "And?"})
    chat.close()
    again = chat_of(model, path)
    assert again.messages == chat.messages
    again.close()


def test_what_was_taken_back_is_no_more_in_the_tokens(model: edgeqwen.Model, path: Path) -> None:
    chat = chat_of(model, path)
    for question in ("37+48", "What does --top-k do?"):
        list(chat.send(question, max_tokens=8))
    tokens = list(summarize_tokens(path))
    chat.truncate(2)
    left = summarize_tokens(path)
    assert left == tokens[: len(left)]
    words = model.tokenizer.decode(left)
    assert "37+48" in words
    assert "--top-k" not in words
    # What is left needn't be read again.
    assert chat.send("And?", max_tokens=3).stats.n_reused >= len(left) - 1
    chat.truncate(0)
    assert summarize_tokens(path) == []
    chat.close()


def summarize_tokens(path: Path) -> list[int]:
    with reading(path) as (_, _, state):
        return state.tokens


def test_a_session_without_messages_can_be_rebuilt(model: edgeqwen.Model, path: Path) -> None:
    chat_of(model, path).close()
    with edgeqwen.load(n_threads=2, cache_type="q8_0") as other:
        with pytest.raises(SessionError, match=r"its cache type is f16, the model's is q8_0; load"):
            chat_of(other, path)
        chat = chat_of(other, path, rebuild=True)
        assert chat.messages == []
        list(chat.send("37+48", max_tokens=3))
        chat.close()
    assert messages(path)[0] == {"role": "user", "content": "37+48"}


def test_a_session_goes_by_any_name(model: edgeqwen.Model, path: Path) -> None:
    chat_of(model, path).close()
    half = path.with_name(".session.new")
    half.write_bytes(bytes(100))
    if os.name != "nt":
        (link := path.with_name("link")).symlink_to(path)
        delete(link)
        assert not link.is_symlink()
    else:
        delete(path)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(SessionError, match="no such session"):
        delete(path)
    with pytest.raises(SessionError, match="File name too long"):
        delete(path.with_name("x" * 300))
