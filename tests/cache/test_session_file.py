"""Session files without an engine: what they keep, how they grow, and what is wrong with them."""

import contextlib
import dataclasses
import os
import random
import stat
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeqwen.cache import session_file, session_state
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import FIRST_UNIT, SLOTS, UNIT_BYTES, Commit
from edgeqwen.cache.session_lock import SessionLock, lock_path
from edgeqwen.cache.session_state import salvage
from edgeqwen.cache.verify import verify
from edgeqwen.errors import EdgeqwenError, SessionError, SessionLockedError
from tests.cache.filled import IDENTITY, create, extend, holds, random_ids
from tests.simd.processes import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SessionFile]:
    session = SessionFile.open(path, IDENTITY)
    try:
        yield session
    finally:
        session.close()


def test_a_session_is_what_it_was(path: Path) -> None:
    tokens = random_ids(600)
    create(path, tokens, "Grüße".encode()).close()
    with opened(path) as session:
        assert holds(session, tokens)
        assert session.transcript.decode() == "Grüße"
        extend(session, tokens[:10])
    with opened(path) as session:
        assert holds(session, tokens + tokens[:10])
    found = verify(path)
    assert (found.summary.n_tokens, found.n_covered, found.problems) == (610, 610, ())


def test_an_empty_session(path: Path) -> None:
    create(path).close()
    with opened(path) as session:
        assert holds(session, [])
        assert session.transcript == b""
        assert session.edits == 0


def test_only_the_user_may_read_it(path: Path) -> None:
    path.with_name(".session.new").write_bytes(b"of a process that was killed")
    create(path, [1]).close()
    if os.name != "nt":
        for file in (path, lock_path(path)):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == [".session.lock", "session"]


def test_one_that_is_there_is_replaced_only_if_that_is_wished(path: Path) -> None:
    create(path, [1, 2]).close()
    with pytest.raises(SessionError, match="is there already; open it, or name another file"):
        SessionFile.create(path, IDENTITY)
    with opened(path) as session:
        assert session.tokens == [1, 2]
    SessionFile.create(path, IDENTITY, transcript=b"kept", replace=True).close()
    with opened(path) as session:
        assert session.tokens == []
        assert session.transcript == b"kept"


@pytest.mark.parametrize("n", [1, 255, 256, 257, 511, 512, 513, 1000])
def test_tokens_across_the_borders_of_segments(path: Path, n: int) -> None:
    tokens = random_ids(1000)
    session = create(path, tokens[:n])
    extend(session, tokens[n:])
    session.close()
    with opened(path) as session:
        assert holds(session, tokens)
        session.truncate(n)
        assert len(session.segments) == -(-n // 256)
    with opened(path) as session:
        assert holds(session, tokens[:n])
        assert session.edits == (n < 1000)
    assert verify(path).problems == ()


def test_growing_moves_nothing(path: Path) -> None:
    session = create(path, random_ids(256))
    addresses = [session.segments[0].address]
    for i in range(1, 12):
        extend(session, random_ids(256, i))
        session.set_transcript(bytes(i * 30_000))
        addresses.append(session.segments[-1].address)
    assert [segment.address for segment in session.segments] == addresses
    assert len({*addresses}) == 12
    session.close()


def test_places_are_used_again(path: Path) -> None:
    session = create(path, random_ids(1000))
    session.close()
    size = path.stat().st_size
    for i in range(5):
        with opened(path) as session:
            session.truncate(200 + i)
            extend(session, random_ids(800 - i, i))
    assert path.stat().st_size == size
    for i in range(9):
        with opened(path) as session:
            session.set_transcript(b"%d" % i * 1000)
    assert path.stat().st_size <= size + 3 * UNIT_BYTES


def test_a_segment_in_a_place_that_was_used_has_no_seal(path: Path) -> None:
    session = create(path, random_ids(600))
    session.seal()
    session.truncate(256)
    extend(session, random_ids(3))
    assert session.segments[1].seal == (0, 0)
    session.abandon()
    assert verify(path).problems == ()


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


def test_a_session_is_open_once(path: Path) -> None:
    session = create(path, [1])
    message = "is open in another program or another conversation; close it there, or take a copy"
    with pytest.raises(SessionLockedError, match=message):
        SessionFile.open(path, IDENTITY)
    with pytest.raises(SessionLockedError):
        SessionFile.create(path, IDENTITY, replace=True)
    session.close()
    session.close()
    opened_anew(path)


@pytest.mark.processes
def test_a_session_is_open_in_one_process(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from edgeqwen.cache.session_file import SessionFile\n"
        "from tests.cache.filled import IDENTITY\n"
        "session = SessionFile.open(Path(sys.argv[1]), IDENTITY)\n"
        "session.append; print('open', flush=True); sys.stdin.read()"
    )
    create(path, random_ids(20)).close()
    process = subprocess.Popen(
        [sys.executable, "-c", program, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(SessionLockedError):
        SessionFile.open(path, IDENTITY)
    assert verify(path).summary.n_tokens == 20  # reading is allowed
    process.kill()
    process.communicate()
    with opened(path) as session:
        assert holds(session, random_ids(20))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_all_names_of_a_session_are_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    session = SessionFile.create(link, IDENTITY)
    assert link.is_symlink()
    assert session.path == path
    monkeypatch.chdir(path.parent)
    for name in (path, link, Path("session"), Path("link")):
        with pytest.raises(SessionLockedError):
            SessionFile.open(name, IDENTITY)
    session.close()
    session = SessionFile.open(Path("session"), IDENTITY)
    monkeypatch.chdir("/")
    extend(session, random_ids(300))  # looks for room on the disk
    session.close()
    assert not Path("/.session.lock").exists()
    with opened(path) as session:
        assert holds(session, random_ids(300))


def test_another_thread_may_close_it_or_forget_it(path: Path) -> None:
    held = [create(path, [1])]
    run(held[0].close)
    held = [SessionFile.open(path, IDENTITY)]
    run(held.clear)  # the last reference
    with opened(path) as session:
        assert session.tokens == [1]


def test_a_folder_that_locks_nothing_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(EdgeqwenError, match="can't be locked: FileSystem does not appear"):
        SessionLock.acquire(path)


def test_a_failure_to_open_gives_the_lock_back(path: Path) -> None:
    create(path, [1]).close()
    other = dataclasses.replace(IDENTITY, weights=bytes(32))
    with pytest.raises(SessionError):
        SessionFile.open(path, other)
    with pytest.raises(SessionError):
        SessionFile.create(path, IDENTITY)
    handles = len(os.listdir("/dev/fd")) if Path("/dev/fd").exists() else 0
    for _ in range(5):
        with pytest.raises(SessionError):
            SessionFile.open(path, other)
    if handles:
        assert len(os.listdir("/dev/fd")) == handles
    opened_anew(path)


def test_random_lives(path: Path) -> None:
    """Like a list of tokens and a text, through anything."""
    for seed in range(6):
        choose = random.Random(seed)
        tokens: list[int] = []
        text = b""
        session = create(path)
        for _ in range(30):
            match choose.randrange(6):
                case 0 | 1:
                    more = random_ids(choose.choice([1, 2, 255, 256, 300]), choose.randrange(99))
                    extend(session, more)
                    tokens += more
                case 2:
                    n = choose.randint(0, len(tokens))
                    session.truncate(n)
                    del tokens[n:]
                case 3:
                    text = choose.randbytes(choose.choice([0, 1, 70_000]))
                    session.set_transcript(text)
                case 4:
                    session.seal()
                    found = verify(path)
                    assert (found.problems, found.n_covered) == ((), len(tokens))
                case 5:
                    (session.close if choose.random() < 0.5 else session.abandon)()
                    assert verify(path).problems == ()
                    session = SessionFile.open(path, IDENTITY)
            assert session.tokens == tokens
            assert session.transcript == text
        assert holds(session, tokens)
        session.close()
        path.unlink()


def restart(monkeypatch: pytest.MonkeyPatch, boot: bytes) -> None:
    """Makes the system one that was started anew; zeros: one that doesn't tell."""
    for module in (session_file, session_state):
        monkeypatch.setattr(module, "boot_identity", lambda: boot)


def opened_anew(path: Path) -> contextlib.closing[SessionFile]:
    """Asserts that a session can be opened or made, and closes it."""
    session = SessionFile.open(path, IDENTITY) if path.exists() else create(path)
    session.close()
    return contextlib.closing(SessionFile.open(path, IDENTITY))


def run(action: object) -> None:
    thread = threading.Thread(target=action)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def slot_of(data: bytes, which: int) -> bytes:
    start = SLOTS[which] * UNIT_BYTES
    return data[start : start + UNIT_BYTES]


def first_segment(path: Path) -> int:
    """Returns where the first segment's extent begins, in bytes."""
    commit = Commit.decode(slot_of(path.read_bytes(), 0))
    assert commit is not None
    return commit.segments[0] * UNIT_BYTES


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flips a bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
