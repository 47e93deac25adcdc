"""Copies of sessions, also of those that somebody writes at the same time."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.cache import session_copies
from edgeqwen.cache.session_copies import copy_session, copy_to_memory
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import Identity
from edgeqwen.cache.session_state import SessionState, read_state
from edgeqwen.cache.verify import verify
from edgeqwen.errors import SessionError, SessionLockedError
from tests.cache.filled import IDENTITY, create, extend, holds, marks, opened, random_ids, restart


def test_a_copy_in_memory_beside_who_writes_it(path: Path) -> None:
    session = create(path, random_ids(300), b"said")
    store, transcript, edits = copy_to_memory(path, IDENTITY)
    extend(session, random_ids(300, 1))
    session.truncate(10)
    extend(store, random_ids(5, 2))
    assert (transcript, edits) == (b"said", 0)
    assert holds(store, random_ids(300) + random_ids(5, 2))
    assert copy_to_memory(path, IDENTITY)[2] == 1
    session.close()


def test_a_copy_in_a_file(path: Path) -> None:
    session = create(path, random_ids(600), b"said")
    session.truncate(300)  # leaves a gap
    session.set_transcript(b"and more")
    target = path.with_name("copy")
    copy_session(path, target)
    with pytest.raises(SessionError, match="copy: is there already; name another file"):
        copy_session(path, target)
    session.close()
    found = verify(target)
    assert (found.problems, found.n_covered) == ((), 300)
    copy = SessionFile.open(target, IDENTITY)
    assert holds(copy, random_ids(300)[:300])
    assert copy.transcript == b"and more"
    extend(copy, random_ids(300, 1))
    copy.close()
    assert verify(target).problems == ()
    assert verify(path).summary.n_tokens == 300


def test_all_of_a_copy_is_on_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is whole on another machine, also where the session wasn't sealed."""
    session = create(path, random_ids(100))
    session.seal()
    extend(session, random_ids(200, 1))
    session.set_transcript(b"said")
    target = path.with_name("copy")
    copy_session(path, target)
    session.close()
    restart(monkeypatch, bytes([7] * 16))
    copy = SessionFile.open(target, IDENTITY)
    assert holds(copy, random_ids(100) + random_ids(200, 1))
    assert copy.transcript == b"said"
    copy.close()


def test_a_copy_does_not_hide_damage(path: Path) -> None:
    session = create(path, random_ids(100))
    session.seal()
    session.segments[0].view(0, 10)[:] ^= 1
    extend(session, random_ids(10, 1))
    copy_session(path, path.with_name("copy"))
    session.close()
    assert len(verify(path.with_name("copy")).problems) == 1


def test_copies_without_help_of_the_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(path, random_ids(300), b"said").close()

    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    for i, stands_in in enumerate((refuse, lambda *_: 0)):
        monkeypatch.setattr("os.copy_file_range", stands_in, raising=False)
        copy_session(path, path.with_name(f"copy{i}"))
        assert holds(copy_to_memory(path.with_name(f"copy{i}"), IDENTITY)[0], random_ids(300))


def test_what_can_not_be_copied(path: Path) -> None:
    with pytest.raises(SessionError, match="no such session"):
        copy_session(path, path.with_name("copy"))
    create(path, [1]).close()
    other = dataclasses.replace(IDENTITY, weights=bytes(32))
    with pytest.raises(SessionError, match="can't be continued: it belongs to other weights"):
        copy_to_memory(path, other)
    being_written = create(path.with_name("copy"))
    with pytest.raises(SessionLockedError):
        copy_session(path, path.with_name("copy"))
    being_written.close()
    assert not list(path.parent.glob("*.new"))


def changing(monkeypatch: pytest.MonkeyPatch, session: SessionFile, times: int) -> None:
    """Has a session change whenever somebody has begun to read it, so many times."""
    left = times

    def read(handle: int, path: Path, identity: Identity, access: int) -> SessionState:
        nonlocal left
        state = read_state(handle, path, identity, access)
        if left > 0:
            left -= 1
            session.truncate(len(session.tokens) - 10)
            extend(session, random_ids(10, left + 50))
            session.set_transcript(b"%d" % left)
            session.set_transcript(b"%d" % left)
        return state

    monkeypatch.setattr(session_copies, "read_state", read)


def test_what_changes_meanwhile_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = create(path, random_ids(300), b"said")
    changing(monkeypatch, session, 1)
    store, transcript, _ = copy_to_memory(path, IDENTITY)
    assert holds(store, session.tokens)
    assert transcript == session.transcript
    changing(monkeypatch, session, 2)  # the first to see whether it is a session
    copy_session(path, path.with_name("copy"))
    assert holds(copy_to_memory(path.with_name("copy"), IDENTITY)[0], session.tokens)
    session.close()


def test_what_changes_all_the_time_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = create(path, random_ids(300), b"said")
    changing(monkeypatch, session, 99)
    message = "is changed all the time by who has it open; try again later"
    with pytest.raises(SessionError, match=message):
        copy_to_memory(path, IDENTITY)
    with pytest.raises(SessionError, match=message):
        copy_session(path, path.with_name("copy"))
    assert sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock") == ["session"]
    session.close()


def test_copies_beside_a_busy_writer(path: Path) -> None:
    """Each is a state that the session was in, or a clear refusal; never half of two."""
    first = random_ids(300)
    session = create(path, first, b"0")
    ended = threading.Event()

    def write() -> None:
        for i in range(1, 150):
            session.truncate(300 - i)
            extend(session, random_ids(40 + i, i))
            session.set_transcript(b"%d" % i * 1000)
            extend(session, random_ids(200, i))
            session.truncate(340)
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    n_copies, refusals = 0, []
    while not ended.is_set():
        target = path.with_name(f"copy{n_copies}")
        try:
            store, _, _ = copy_to_memory(path, IDENTITY)
            copy_session(path, target)
        except SessionError as error:
            refusals.append(str(error))
            continue
        n_copies += 1
        assert holds(store, store.tokens)
        assert verify(target).problems == ()
        target.unlink()
    thread.join()
    session.close()
    assert verify(path).problems == ()
    assert all("is changed all the time" in refusal for refusal in refusals), refusals


def test_what_was_taken_away_is_not_in_a_copy(path: Path) -> None:
    """Neither words nor ids nor keys, wherever they lay in the parts that are copied."""
    secret, ids = b"the password is swordfish", random_ids(200, 7)
    session = create(path, random_ids(300) + ids, b"said " * 20 + secret)
    extend(session, random_ids(300, 8))
    session.truncate(300)
    session.set_transcript(b"a" * 70_000)
    session.set_transcript(secret * 100)
    session.set_transcript(b"said")  # in the place of the first
    session.close()
    mark = marks(random_ids(300) + ids)[350].tobytes() * 32
    traces = [secret, np.array(ids[:20], "<i4").tobytes(), mark]
    whole = path.read_bytes()
    assert all(trace in whole for trace in traces)
    copy_session(path, copy := path.with_name("copy"))
    copied = copy.read_bytes()
    assert not any(trace in copied for trace in traces)
    assert verify(copy).problems == ()
    with opened(copy) as session:
        assert holds(session, random_ids(300))
        assert session.transcript == b"said"
