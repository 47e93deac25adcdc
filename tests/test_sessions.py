"""Conversations in session files, on the real engine."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeqwen
from edgeqwen.cache import session_file
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.verify import verify
from edgeqwen.errors import (
    ClosedError,
    DiskError,
    OptionError,
    SessionError,
    SessionLockedError,
)
from edgeqwen.sessions import identity_of
from tests.engines import open_engine, random_tokens, write_model
from tests.simd.processes import ROOT

GREEDY: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1}
QUESTIONS = ("What does --top-k do?", "37+48", "How do I quantize a model to 4 bits?")


@pytest.fixture(scope="module")
def model() -> Iterator[edgeqwen.Model]:
    with edgeqwen.load(n_threads=2) as model:
        yield model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session"


def chat_of(model: edgeqwen.Model, path: Path | None = None, **options: Any) -> edgeqwen.Chat:
    return model.chat(session=path, **{**GREEDY, **options})


def fresh_answer(model: edgeqwen.Model, messages: list[dict[str, Any]], **options: Any) -> str:
    """Returns what a conversation in memory answers to the last of the messages."""
    chat = chat_of(model)
    chat.messages = [dict(message) for message in messages[:-1]]
    return chat.send(messages[-1]["content"], **options).text


# The engine underneath: sequences.


@pytest.mark.parametrize("cache_type", ["f16", "f32"])
def test_logits_after_opening_are_those_without_a_break(tmp_path: Path, cache_type: str) -> None:
    model = write_model(tmp_path / "model.gguf", types="Q4_0")
    with open_engine(model, cache_type=cache_type) as engine, contextlib.ExitStack() as stack:
        identity = identity_of(engine, file_of(engine, stack, model))
        for n in (1, 2, 31, 32, 255, 256, 257, 512, 700):
            path, tokens = tmp_path / f"session{n}", random_tokens(n + 40, n)
            whole = engine.new_sequence()
            first = engine.prefill(whole, tokens[:n]).copy()
            expected = [engine.decode(whole, token).copy() for token in tokens[n : n + 5]]
            expected.append(engine.prefill(whole, tokens[n + 5 :]).copy())
            with contextlib.closing(engine.new_sequence(SessionFile.create(path, identity))) as s:
                np.testing.assert_array_equal(bits(engine.prefill(s, tokens[:n])), bits(first))
            found = []
            for token in tokens[n : n + 5]:
                with contextlib.closing(engine.new_sequence(SessionFile.open(path, identity))) as s:
                    found.append(engine.decode(s, token).copy())
            with contextlib.closing(engine.new_sequence(SessionFile.open(path, identity))) as s:
                found.append(engine.prefill(s, tokens[n + 5 :]).copy())
                # One token is read again, as the next turn of a chat may do it.
                s.truncate(n + 39)
                found.append(engine.prefill(s, tokens[n + 39 :]).copy())
                expected.append(expected[-1])
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(bits(a), bits(b))
            whole.close()


def test_what_lies_where_no_token_is_changes_nothing(tmp_path: Path) -> None:
    """A place of the file that is used again holds anything: not numbers, for one."""
    model = write_model(tmp_path / "model.gguf", types="Q4_0")
    with open_engine(model) as engine, contextlib.ExitStack() as stack:
        identity = identity_of(engine, file_of(engine, stack, model))
        for n in (1, 33, 70, 255, 300):
            tokens = random_tokens(n)
            session = SessionFile.create(tmp_path / f"session{n}", identity)
            sequence = engine.new_sequence(session)
            sequence.reserve(n + 1)
            for segment in session.segments:
                segment.view(0, engine.layout.segment_bytes)[:] = 255
            fresh = engine.new_sequence()
            for step in (
                lambda s, tokens=tokens: engine.prefill(s, tokens),
                lambda s: engine.decode(s, 5),
            ):
                expected = step(fresh).copy()
                np.testing.assert_array_equal(bits(step(sequence)), bits(expected))
            sequence.close()
            fresh.close()


def file_of(engine: Any, stack: contextlib.ExitStack, path: Path) -> Any:
    return stack.enter_context(edgeqwen.gguf_file.GgufFile.open(path))


def bits(logits: np.ndarray) -> np.ndarray:
    return logits.view(np.int32)


# Which sessions a model takes.


def test_a_session_of_another_model_is_refused_or_read_again(tmp_path: Path) -> None:
    options: dict[str, Any] = {"types": "Q4_0"}
    base = write_model(tmp_path / "base.gguf", **options)
    long = {"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0}
    long["qwen2.rope.scaling.original_context_length"] = 256
    others = [
        (write_model(tmp_path / "seed.gguf", seed=1, **options), {}, "other weights"),
        (
            write_model(
                tmp_path / "theta.gguf", metadata={"qwen2.rope.freq_base": 10_000.0}, **options
            ),
            {},
            "other RoPE settings",
        ),
        (write_model(tmp_path / "yarn.gguf", metadata=long, **options), {}, "other RoPE settings"),
        (
            write_model(
                tmp_path / "eps.gguf",
                metadata={"qwen2.attention.layer_norm_rms_epsilon": 1e-5},
                **options,
            ),
            {},
            "other RoPE settings",
        ),
        (base, {"cache_type": "f32"}, "its cache type is f16, the model's is f32"),
    ]
    path = tmp_path / "session"
    with edgeqwen.load(base, n_threads=2) as model:
        chat = chat_of(model, path)
        chat.send("hello", max_tokens=5).close()
        list(chat.send("hello", max_tokens=5))
        messages = chat.messages
        chat.close()
    before = path.read_bytes()
    for other, options, reason in others:
        with edgeqwen.load(other, n_threads=2, **options) as model:
            with pytest.raises(SessionError, match=f"can't be continued: .*{reason}.*--rebuild"):
                chat_of(model, path)
            with pytest.raises(SessionError, match=reason):
                chat_of(model, path, fork=True)
            assert path.read_bytes() == before
            chat = chat_of(model, path, rebuild=True)
            assert chat.messages == messages
            answer = chat.send("and?", max_tokens=5)
            assert answer.stats.n_reused == 0
            assert answer.text == fresh_answer(model, chat.messages[:-1], max_tokens=5)
            chat.close()
            chat = chat_of(model, path)
            assert len(chat.messages) == len(messages) + 2
            chat.close()
        path.write_bytes(before)
    with edgeqwen.load(base, n_threads=2, max_context=512) as model:  # which is no part of it
        chat = chat_of(model, path, rebuild=True)
        assert chat.send("and?", max_tokens=1).stats.n_reused > 0
        chat.close()


def test_options_about_no_session_are_refused(model: edgeqwen.Model) -> None:
    for option in ("rebuild", "fork"):
        with pytest.raises(OptionError, match="rebuild and fork are about a session"):
            model.chat(**{option: True})  # type: ignore[arg-type]


# Conversations.


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


# Failures.

WRITER = """
import sys, os, json, signal
import edgeqwen
from pathlib import Path
model = edgeqwen.load(n_threads=2)
chat = model.chat(session=sys.argv[1], temperature=0, repetition_penalty=1)
list(chat.send("37+48", max_tokens=30))
for i, piece in enumerate(chat.send("What does --top-k do?", max_tokens=60)):
    print(json.dumps(piece), flush=True)
    if i == int(sys.argv[2]):
        exec(sys.argv[3])
"""


def broken_off(path: Path, n_pieces: int, how: str) -> tuple[int, str, str]:
    """Answers in another process until ``how`` ends it; returns its status, text and errors."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, path, str(n_pieces), how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, "".join(map(json.loads, done.stdout.splitlines())), done.stderr


@pytest.mark.processes
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_answer_of_a_killed_process_is_there(model: edgeqwen.Model, path: Path) -> None:
    status, shown, errors = broken_off(path, 12, "os.kill(os.getpid(), signal.SIGKILL)")
    assert status == -signal.SIGKILL, errors
    chat = chat_of(model, path)
    roles = [message["role"] for message in chat.messages]
    assert roles == ["user", "assistant", "user", "assistant"]
    kept = chat.messages[3]["content"]
    # The token that was shown last was chosen, but no step has computed it.
    assert shown.startswith(kept)
    assert len(kept) > len(shown) // 2
    # It stays, whatever comes next.
    del chat
    gc.collect()
    with contextlib.closing(SessionFile.open(path, identity_of(model.engine, model._file))) as s:
        s.truncate(5)
    chat = chat_of(model, path)
    assert chat.messages[3]["content"] == kept
    answer = chat.send("go on", max_tokens=5)
    assert answer.text == fresh_answer(model, chat.messages[:-1], max_tokens=5)
    chat.close()
    assert verify(path).problems == ()


@pytest.mark.processes
@pytest.mark.parametrize("how", ["sys.exit(0)", "raise KeyboardInterrupt", "model.close()"])
def test_a_process_that_ends_without_closing_says_nothing(
    model: edgeqwen.Model, path: Path, how: str
) -> None:
    _, shown, errors = broken_off(path, 6, how)
    assert "Exception ignored" not in errors
    chat = chat_of(model, path)
    kept = chat.messages[3]["content"]
    assert kept
    assert shown.startswith(kept)
    chat.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_answer_broken_off_by_an_error_goes_on(
    model: edgeqwen.Model, path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    chat = chat_of(model, path)
    list(chat.send("37+48", max_tokens=5))
    for broken in ("append", "truncate", "set_transcript", "seal"):
        n_calls = 0
        original = getattr(SessionFile, broken)

        def fail(
            self: SessionFile,
            *arguments: Any,
            original: Any = original,
            broken: str = broken,
            **named: Any,
        ) -> None:
            nonlocal n_calls
            n_calls += 1
            if n_calls == (4 if broken == "append" else 1):
                if broken == "truncate":
                    del self.tokens[1:]  # in the middle of it
                raise error
            original(self, *arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(SessionFile, broken, fail)
            with pytest.raises(error):
                list(chat.send(f"12+{n_calls + 30}", max_tokens=12))
        before = [dict(message) for message in chat.messages]
        answer = chat.send("And now?", max_tokens=6)
        assert answer.text == fresh_answer(
            model, [*before, {"role": "user", "content": "And now?"}], max_tokens=6
        )
        assert answer.stats.n_reused > 0
    messages = chat.messages
    chat.close()
    chat = chat_of(model, path)
    assert chat.messages == messages
    chat.close()
    assert verify(path).problems == ()


def test_a_full_disk_in_the_middle_of_an_answer(
    model: edgeqwen.Model, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = chat_of(model, path)
    list(chat.send("37+48", max_tokens=5))
    with monkeypatch.context() as patch:
        patch.setattr(session_file, "SPARE_BYTES", 1 << 62)
        with pytest.raises(DiskError, match="there is no room left on the disk"):
            list(chat.send("What does --top-k do? " * 60, max_tokens=50))
    assert len(chat.messages) == 2
    assert chat.send("37+48", max_tokens=5).stats.n_reused > 0
    messages = chat.messages
    chat.close()
    chat = chat_of(model, path)
    assert chat.messages == messages
    chat.close()


def test_a_closed_model_seals_its_sessions(tmp_path: Path) -> None:
    paths = [tmp_path / f"session{i}" for i in range(3)]
    model = edgeqwen.load(n_threads=2)
    chats = [chat_of(model, path) for path in paths]
    for chat in chats:
        list(chat.send("37+48", max_tokens=5))
    answer = chats[0].send("What does --top-k do?", max_tokens=50)
    next(answer)
    model.close()
    with pytest.raises(ClosedError):
        next(answer)
    with pytest.raises(ClosedError):
        chats[1].send("more")
    for chat in chats:
        chat.close()
    for path in paths:
        found = verify(path)
        assert found.problems == ()
        assert found.n_covered == found.summary.n_tokens > 0


def test_a_disk_that_fails_for_one_session_leaves_no_other_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"session{i}" for i in range(3)]
    model = edgeqwen.load(n_threads=2)
    chats = [chat_of(model, path) for path in paths]
    for chat in chats:
        list(chat.send("37+48", max_tokens=5))
    original = SessionFile.seal

    def fail(self: SessionFile) -> None:
        if self.path == paths[1]:
            raise DiskError("no room")
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(SessionFile, "seal", fail)
        with pytest.raises(DiskError):
            model.close()
    with pytest.raises(ClosedError):
        model.engine.prefill(model.engine.new_sequence(), [1])
    with edgeqwen.load(n_threads=2) as again:
        for path in paths:
            chat = chat_of(again, path)
            assert len(chat.messages) == 2
            chat.close()


def test_a_chat_that_is_forgotten_lets_others_in(model: edgeqwen.Model, path: Path) -> None:
    for forget in ("here", "in another thread", "in the middle of an answer"):
        held: list[Any] = [chat_of(model, path)]
        if forget == "in the middle of an answer":
            held.append(held[0].send("What does --top-k do?", max_tokens=20))
            next(held[1])
        gc.disable()
        try:
            if forget == "in another thread":
                thread = threading.Thread(target=held.clear)
                thread.start()
                thread.join()
            held.clear()
            chat_of(model, path).close()
        finally:
            gc.enable()
    chat = chat_of(model, path)
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]
    chat.close()


def test_another_folder_changes_nothing(
    model: edgeqwen.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    chat = model.chat(session="session", **GREEDY)
    list(chat.send("37+48", max_tokens=5))
    chat.close()
    monkeypatch.chdir(tmp_path)
    list(chat.send("12+30", max_tokens=5))
    chat.close()
    assert chat.session == tmp_path / "a" / "session"
    assert not (tmp_path / "session").exists()
    assert len(chat_of(model, tmp_path / "a" / "session").messages) == 4


def test_damaged_sessions_are_told_and_what_is_left_is_used(
    model: edgeqwen.Model, path: Path
) -> None:
    chat = chat_of(model, path)
    list(chat.send("37+48", max_tokens=5))
    messages = chat.messages
    chat.close()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    for slot in (1, 2):
        damaged[slot * 65536 + 8 : slot * 65536 + 40] = bytes(32)
    path.write_bytes(damaged)
    with pytest.raises(SessionError, match="is damaged: it has no commit record"):
        chat_of(model, path)
    with pytest.raises(SessionError, match="no messages are left in it; begin a new session"):
        chat_of(model, path, rebuild=True)
    assert path.read_bytes() == damaged
    # A cut through the last segment leaves the messages, if these lie before it.
    for n in (70_000, 196_608, len(whole) - 65536):
        path.write_bytes(whole[:n])
        with pytest.raises(SessionError, match="is cut short"):
            chat_of(model, path)
        with contextlib.suppress(SessionError):
            chat = chat_of(model, path, rebuild=True)
            assert chat.messages == messages
            assert chat.send("12+30", max_tokens=3).stats.n_reused == 0
            chat.close()
    path.write_bytes(b"GGUF" + bytes(70_000))
    with pytest.raises(SessionError, match="is no session file"):
        chat_of(model, path)
    with pytest.raises(SessionError, match="no messages are left"):
        chat_of(model, path, rebuild=True)
