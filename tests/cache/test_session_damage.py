"""Session files that were damaged, or made to harm: told, and left as they are."""

import contextlib
import dataclasses
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from edgeqwen.cache import session_state
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import FIRST_UNIT, SLOTS, UNIT_BYTES, Commit
from edgeqwen.cache.session_state import salvage
from edgeqwen.cache.verify import verify
from edgeqwen.errors import SessionError
from tests.cache.filled import (
    IDENTITY,
    create,
    extend,
    first_segment,
    flip,
    holds,
    opened,
    opened_anew,
    random_ids,
)
from tests.simd.processes import ROOT


def test_a_torn_record_is_one_that_was_not_written(path: Path) -> None:
    """However many of its bytes were written when the process died, the rest being old."""
    session = create(path, random_ids(300))
    session.truncate(200)
    before = path.read_bytes()
    extend(session, [5])
    slot = SLOTS[session._commit.number % 2]
    session.abandon()
    after = path.read_bytes()
    start, length = slot * UNIT_BYTES, len(session._commit.encode())
    states = set()
    for n in range(length + 1):
        torn = bytearray(after)
        other = bytearray(after[start : start + length])
        other[n:] = before[start + n : start + length]
        torn[start : start + length] = other
        path.write_bytes(torn)
        with contextlib.closing(SessionFile.open(path, IDENTITY)) as session:
            states.add(len(session.tokens))
            assert holds(session, [*random_ids(300)[:200], *[5] * (len(session.tokens) - 200)])
            session.abandon()
    assert states == {200, 201}


def test_a_bad_slot_is_made_up_for_by_the_other(path: Path) -> None:
    tokens = random_ids(300)
    for slot in SLOTS:
        create(path, tokens).close()
        with path.open("r+b") as file:
            file.seek(slot * UNIT_BYTES + 20)
            file.write(b"\xff")
        with opened(path) as session:
            assert holds(session, tokens)
        path.unlink()


def test_two_bad_slots_are_told(path: Path) -> None:
    create(path, random_ids(300), b"said").close()
    with path.open("r+b") as file:
        for slot in SLOTS:
            file.seek(slot * UNIT_BYTES + 20)
            file.write(b"\xff")
    with pytest.raises(SessionError, match="is damaged: it has no commit record; restore it"):
        SessionFile.open(path, IDENTITY)
    with pytest.raises(SessionError, match="no messages are left in it; begin a new session"):
        salvage(path)


def test_a_file_cut_anywhere_is_told(path: Path) -> None:
    create(path, random_ids(600), b"said").close()
    whole = path.read_bytes()
    cuts = {*range(0, len(whole), UNIT_BYTES // 2), 1, 16, 300, len(whole) - 1}
    for n in sorted(cuts):
        path.write_bytes(whole[:n])
        for look in (verify, lambda p: SessionFile.open(p, IDENTITY)):
            with pytest.raises(SessionError, match=r"is cut short|is no session file"):
                look(path)
        with contextlib.suppress(SessionError):  # the transcript may be left
            assert salvage(path) == (b"said", [], 0)
        assert path.stat().st_size == n


def test_a_flipped_bit_in_the_ids_is_told(path: Path) -> None:
    create(path, random_ids(300), b"said").close()
    offset = first_segment(path) + 4 * 100
    flip(path, offset)
    for look in (verify, lambda p: SessionFile.open(p, IDENTITY)):
        with pytest.raises(SessionError, match="the checksum of its 300 tokens is wrong"):
            look(path)
    assert salvage(path) == (b"said", [], 0)


def test_an_id_outside_the_vocabulary_is_told_whatever_the_checksum_says(path: Path) -> None:
    session = create(path, random_ids(10))
    for bad in (1000, -1):
        session.append([bad])
        session.set_transcript(b"")  # into both slots
        session.abandon()
        with pytest.raises(SessionError, match=r"the checksum of its 11 tokens is wrong"):
            SessionFile.open(path, IDENTITY)
        path.unlink()
        session = create(path, random_ids(10))
    session.close()


def test_a_flipped_bit_in_the_transcript_is_told(path: Path) -> None:
    create(path, random_ids(300), b"said").close()
    flip(path, FIRST_UNIT * UNIT_BYTES + 1)
    with opened(path) as session, pytest.raises(SessionError, match="checksum of its messages is"):
        session.transcript  # noqa: B018
    (problem,) = verify(path).problems
    assert problem.startswith("the checksum of its messages is")
    with pytest.raises(SessionError, match="no messages are left"):
        salvage(path)


def test_another_model_and_another_version_are_refused(path: Path) -> None:
    create(path, [1]).close()
    other = dataclasses.replace(IDENTITY, weights=bytes(32), model="other")
    with pytest.raises(SessionError, match=r"can't be continued: it belongs to other weights .fil"):
        SessionFile.open(path, other)
    with path.open("r+b") as file:
        file.seek(16)
        file.write(struct.pack("<I", 2))
    for look in (verify, lambda p: SessionFile.open(p, IDENTITY)):
        with pytest.raises(SessionError, match=r"is a session file of format 2, and this version"):
            look(path)
    with opened_anew(path.with_name("next")) as session:
        assert session.tokens == []


def test_what_is_no_session_is_refused_and_left_alone(tmp_path: Path) -> None:
    cases = {"empty": b"", "model.gguf": b"GGUF" + bytes(300_000), "zeros": bytes(300_000)}
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        for look in (verify, lambda p: SessionFile.open(p, IDENTITY)):
            with pytest.raises(SessionError, match=f"{name}: is no session file; name another"):
                look(path)
        with pytest.raises(SessionError, match="no messages are left in it"):
            salvage(path)
        assert path.read_bytes() == data
    (tmp_path / "folder").mkdir()
    special = [tmp_path / "folder"]
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe")
        special.append(tmp_path / "pipe")
    for path in special:
        with pytest.raises(SessionError, match="is no regular file, expected a session"):
            SessionFile.open(path, IDENTITY)
    gone = tmp_path / "gone" / "session"
    with pytest.raises(SessionError, match=r"gone/session: no such session"):
        SessionFile.open(gone, IDENTITY)
    with pytest.raises(SessionError, match="can't be read: File name too long"):
        SessionFile.open(tmp_path / ("x" * 300), IDENTITY)
    assert not gone.parent.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"transcript_bytes": 2**32 - 1},
        {"n_tokens": 2**63},
        {"segments": tuple(range(3, 16_000, 3))},
        {"segments": (2**32 - 3,), "n_tokens": 256},
        {"number": 2**64 - 1},
    ],
)
def test_hostile_records_are_refused(path: Path, change: dict[str, object]) -> None:
    create(path, [1]).close()
    commit = dataclasses.replace(Commit(boot=session_state.boot_identity()), **change)  # type: ignore[arg-type]
    with path.open("r+b") as file:
        for slot in SLOTS:
            file.seek(slot * UNIT_BYTES)
            file.write(commit.encode())
    for look in (verify, lambda p: SessionFile.open(p, IDENTITY)):
        with pytest.raises(SessionError, match="is damaged"):
            look(path)
    with pytest.raises(SessionError, match="no messages are left"):
        salvage(path)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files and overcommitted mappings")
def test_a_hostile_sparse_file_takes_no_memory(path: Path) -> None:
    """Lengths that fit a file of 50 GB, of which next to nothing is on the disk."""
    huge = dataclasses.replace(IDENTITY, layout=dataclasses.replace(IDENTITY.layout, n_layers=4096))
    SessionFile.create(path, huge).close()
    per_segment = -(-(4096 + huge.layout.segment_bytes) // UNIT_BYTES)
    segments = tuple(range(3, 3 + 200 * per_segment, per_segment))
    commit = Commit(
        number=5,
        n_tokens=200 * 256,
        tokens_crc=zlib.crc32(bytes(4 * 256 * 200)),
        boot=session_state.boot_identity(),
        segments=segments,
    )
    with path.open("r+b") as file:
        file.truncate((segments[-1] + per_segment) * UNIT_BYTES)
        for slot in SLOTS:
            file.seek(slot * UNIT_BYTES)
            file.write(commit.encode())
    program = (
        "import re, sys; from pathlib import Path\n"
        "from edgeqwen.cache.verify import summarize\n"
        "print(summarize(Path(sys.argv[1])).n_tokens)\n"
        # Not ru_maxrss, which begins with what the parent holds.
        "status = Path('/proc/self/status').read_text()\n"
        "assert int(re.search(r'VmHWM:\\s*(\\d+)', status)[1]) < 300_000"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout) == (0, "51200\n"), done.stderr[-2000:]
