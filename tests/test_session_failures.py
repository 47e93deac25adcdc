"""Conversations in sessions when something fails: nothing that was said is lost."""

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

import pytest

import edgeqwen
from edgeqwen.cache import session_file
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.verify import verify
from edgeqwen.errors import (
    ClosedError,
    DiskError,
    SessionError,
)
from edgeqwen.sessions import identity_of
from tests.session_chats import GREEDY, chat_of, fresh_answer
from tests.simd.processes import ROOT

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


@pytest.fixture(scope="module")
def model() -> Iterator[edgeqwen.Model]:
    with edgeqwen.load(n_threads=2) as model:
        yield model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session"


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


def test_a_chat_does_not_write_over_what_another_has_said_since(
    model: edgeqwen.Model, path: Path
) -> None:
    first = chat_of(model, path)
    list(first.send("37+48", max_tokens=5))
    first.close()
    list(first.send("12+30", max_tokens=5))  # alone, it goes on
    first.close()
    second = chat_of(model, path)
    list(second.send("An important message", max_tokens=5))
    messages = second.messages
    second.close()
    with pytest.raises(SessionError, match="was changed by another conversation since this one"):
        list(first.send("And?", max_tokens=5))
    first.close()
    again = chat_of(model, path)
    assert again.messages == messages
    again.close()


@pytest.mark.processes
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_full_disk_takes_no_answer_that_was_broken_off(
    model: edgeqwen.Model, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens must not be taken away before its words are stored."""
    broken_off(path, 12, "os.kill(os.getpid(), signal.SIGKILL)")
    there = chat_of(model, path, fork=True).messages
    assert len(there) == 4
    with monkeypatch.context() as patch:
        patch.setattr(session_file, "SPARE_BYTES", 1 << 62)
        chat = chat_of(model, path)
        assert chat.messages == there
        for answer in (lambda: chat.send("go on"), chat.regenerate, lambda: chat.edit(2, "x")):
            with pytest.raises(DiskError):
                list(answer())
        with pytest.raises(DiskError):
            chat.truncate(1)
        with contextlib.suppress(DiskError):
            chat.close()
    assert chat_of(model, path, fork=True).messages == there
