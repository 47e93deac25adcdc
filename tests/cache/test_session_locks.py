"""Who may open a session file: one writer, whatever name and thread it comes by."""

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_lock import SessionLock
from edgeqwen.cache.verify import verify
from edgeqwen.errors import DiskError, EdgeqwenError, SessionError, SessionLockedError
from tests.cache.filled import IDENTITY, create, extend, holds, opened, opened_anew, random_ids
from tests.simd.processes import ROOT


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


@pytest.mark.skipif(not hasattr(os, "link"), reason="the system has no hard links")
def test_other_names_of_the_file_are_locked_too(path: Path) -> None:
    session = create(path, random_ids(300))
    os.link(path, link := path.with_name("hard"))
    moved = path.with_name("moved")
    for other in (link, moved):
        if other == moved:
            path.rename(moved)
        with pytest.raises(SessionLockedError, match="is open in another program or another conv"):
            SessionFile.open(other, IDENTITY)
    session.close()
    with opened(link) as session:
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


def test_no_folder_is_made(path: Path) -> None:
    inside = path / "session"
    with pytest.raises(DiskError, match=f"session: can't be made: there is no folder {path}; make"):
        create(inside)
    assert not path.exists()


def test_a_name_that_is_too_long_for_its_lock(path: Path) -> None:
    with pytest.raises(DiskError, match="can't be locked: File name too long; name it shorter"):
        create(path.with_name("x" * 252))


def run(action: object) -> None:
    thread = threading.Thread(target=action)  # type: ignore[arg-type]
    thread.start()
    thread.join()
