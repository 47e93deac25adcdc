"""Session files after the system was started anew: what was sealed is there."""

import os
from pathlib import Path

import pytest

from edgeqwen.cache import session_slots, session_state
from edgeqwen.cache.session_format import FIRST_UNIT, UNIT_BYTES, Commit
from edgeqwen.cache.session_slots import CommitSlots
from edgeqwen.cache.session_state import salvage
from edgeqwen.cache.verify import verify
from tests.cache.filled import create, extend, holds, opened, random_ids, restart, slot_of


def test_what_was_not_sealed_is_there_as_long_as_the_system_runs(path: Path) -> None:
    tokens = random_ids(300)
    session = create(path, tokens)
    session.set_transcript(b"told")
    session.abandon()
    with opened(path) as session:
        assert holds(session, tokens)
        assert session.transcript == b"told"


@pytest.mark.parametrize("known", [True, False])
def test_after_the_system_was_started_anew_only_what_was_sealed_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    tokens = random_ids(600)
    session = create(path, tokens[:300])
    session.set_transcript(b"sealed")
    session.seal()
    extend(session, tokens[300:])
    session.set_transcript(b"not sealed")
    session.abandon()
    restart(monkeypatch, bytes([9] * 16) if known else bytes(16))
    assert verify(path).summary.n_tokens == 300
    with opened(path) as session:
        assert holds(session, tokens[:300])
        assert session.transcript == b"sealed"
        extend(session, tokens[300:])
    with opened(path) as session:
        assert holds(session, tokens)
    assert verify(path).problems == ()


def test_whole_segments_of_what_was_sealed_outlive_a_truncation(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = random_ids(600)
    session = create(path, tokens)
    session.seal()
    session.truncate(300)
    extend(session, random_ids(50, 5))
    session.abandon()
    restart(monkeypatch, bytes([9] * 16))
    with opened(path) as session:
        assert holds(session, tokens[:256])


def test_what_was_sealed_is_not_written_over_before_the_next_seal(path: Path) -> None:
    session = create(path)
    session.set_transcript(b"sealed")
    session.seal()
    place = session._commit.transcript
    assert place is not None
    for i in range(5):
        session.set_transcript(b"%d" % i)
        extend(session, random_ids(256, i))
    session.abandon()
    assert path.read_bytes()[place.offset :][:6] == b"sealed"


def test_a_record_of_what_is_stored_comes_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slot by slot: one of them is whole whenever the power fails."""
    session = create(path, random_ids(30), b"said")
    seen = []

    def fsync(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        data = os.read(handle, FIRST_UNIT * UNIT_BYTES)
        slots = [Commit.decode(slot_of(data, which)) for which in (0, 1)]
        seen.append(sorted(slot.n_stored for slot in slots if slot is not None))

    monkeypatch.setattr(os, "fsync", fsync)
    session.seal()
    assert seen == [[0, 0], [0, 30], [30, 30]]
    session.seal()  # has nothing to do
    assert len(seen) == 3
    del seen[:]
    session.truncate(20)
    assert seen == [[0, 30], [0, 0]]
    extend(session, [1])
    session.truncate(20)
    assert len(seen) == 2
    monkeypatch.undo()
    session.close()


@pytest.mark.parametrize(("n_segments", "n_syncs"), [(900, 0), (1100, 2)])
def test_records_of_several_pages_are_written_one_after_the_other(
    path: Path, monkeypatch: pytest.MonkeyPatch, n_segments: int, n_syncs: int
) -> None:
    """Else the power could fail with halves of both on the disk."""
    create(path).close()
    found: list[int] = []
    with path.open("r+b") as file:
        handle = file.fileno()
        monkeypatch.setattr(session_slots, "sync", lambda _: found.append(newest(handle)))
        slots = CommitSlots(handle, path, Commit(number=5, segments=(3,)))
        slots.write(Commit(segments=tuple(range(n_segments))))
        assert found == [6, 7][:n_syncs]
        slots.append(10, 1)  # changes its first page alone
        slots.write(Commit(segments=tuple(range(n_segments))))
        assert len(found) == n_syncs
        assert newest(handle) == 10
        slots.close()


def newest(handle: int) -> int:
    return session_state.read_commits(handle)[0].number


def test_a_session_in_which_nothing_was_said_has_no_messages(path: Path) -> None:
    create(path).close()
    assert salvage(path) == (b"", [], 0)
