"""Full disks, quotas, and places that can't be written: clear errors, and nothing lost."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeqwen.cache import disk, session_file
from edgeqwen.cache.disk import allocate, boot_identity, refusals, replacement
from edgeqwen.cache.session_copies import copy_session
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.verify import verify
from edgeqwen.errors import DiskError
from tests.cache.filled import IDENTITY, create, extend, holds, random_ids
from tests.simd.processes import ROOT

FULL = "there is no room left on the disk; free some and go on. What was stored before is kept"
NEEDS_POSIX = pytest.mark.skipif(os.name == "nt", reason="users and limits of POSIX")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs to mount a file system, which takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("spare", [0, disk.SPARE_BYTES])
def test_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch, spare: int) -> None:
    """With nothing kept to spare, it is the system that says so."""
    monkeypatch.setattr(session_file, "SPARE_BYTES", spare)
    path = small_disk / "session"
    tokens = random_ids(300)
    session = create(path, tokens, b"said")
    session.seal()
    free = shutil.disk_usage(small_disk).free
    (small_disk / "others").write_bytes(bytes(free - spare - 100_000))
    with pytest.raises(DiskError, match=FULL):
        extend(session, random_ids(300, 1))
    with pytest.raises(DiskError, match=FULL):
        session.set_transcript(bytes(200_000))
    # What there is room for in the file needs none on the disk.
    extend(session, random_ids(200, 2))
    session.abandon()
    if spare == 0:
        with pytest.raises(DiskError, match=FULL):
            copy_session(path, small_disk / "copy")
        with pytest.raises(DiskError, match=FULL):
            SessionFile.create(small_disk / "new", IDENTITY)
        visible = {p.name for p in small_disk.iterdir() if not p.name.endswith(".lock")}
        assert visible == {"session", "others"}
    assert verify(path).problems == ()
    session = SessionFile.open(path, IDENTITY)
    assert holds(session, tokens + random_ids(200, 2))
    assert session.transcript == b"said"
    (small_disk / "others").unlink()
    extend(session, random_ids(300, 1))
    session.close()
    session = SessionFile.open(path, IDENTITY)
    assert holds(session, tokens + random_ids(200, 2) + random_ids(300, 1))
    session.close()


def test_a_file_with_holes_is_filled_before_it_is_written_to(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As copies by other programs may have them; on a full disk, writing there ends a process."""
    monkeypatch.setattr(session_file, "SPARE_BYTES", 0)
    path = small_disk / "session"
    create(path, random_ids(10)).close()
    sparse = small_disk / "sparse"
    subprocess.run(["cp", "--sparse=always", path, sparse], check=True)
    assert sparse.stat().st_blocks < path.stat().st_blocks
    (small_disk / "others").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(DiskError, match=FULL):
        SessionFile.open(sparse, IDENTITY)
    (small_disk / "others").unlink()
    session = SessionFile.open(sparse, IDENTITY)
    assert holds(session, random_ids(10))
    session.close()
    assert sparse.stat().st_blocks >= path.stat().st_blocks


QUOTA = """
import resource, sys
from pathlib import Path
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.errors import DiskError
from tests.cache.filled import IDENTITY, create, extend, holds, random_ids

path = Path(sys.argv[1])
session = create(path, random_ids(300))
session.set_transcript(b"said")
limit = path.stat().st_size + 70_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for refused in (lambda: extend(session, random_ids(300, 1)),
                lambda: session.set_transcript(bytes(200_000))):
    try:
        refused()
    except DiskError as error:
        print(error)
extend(session, random_ids(212, 2))
session.set_transcript(b"more")  # has room
session.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
session = SessionFile.open(path, IDENTITY)
assert holds(session, random_ids(300) + random_ids(212, 2))
assert session.transcript == b"more"
extend(session, random_ids(300, 1))
session.close()
"""


@NEEDS_POSIX
@pytest.mark.processes
def test_a_quota(tmp_path: Path) -> None:
    path = tmp_path / "session"
    assert run(QUOTA, path) == [f"{path}: {FULL}"] * 2
    assert verify(path).summary.n_tokens == 812
    assert verify(path).problems == ()


AS_NOBODY = """
import os, sys, filelock
from pathlib import Path
from edgeqwen.cache.session_copies import copy_to_memory
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.errors import DiskError, SessionError
from tests.cache.filled import IDENTITY

folder = Path(sys.argv[1])
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for name in sys.argv[2:]:
    for act in (
        lambda path: SessionFile.open(path, IDENTITY),
        lambda path: len(copy_to_memory(path, IDENTITY)[0].tokens),
        lambda path: SessionFile.create(path, IDENTITY, replace=True),
    ):
        try:
            print(act(folder / name))
        except (DiskError, SessionError) as error:
            print(type(error).__name__, error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="edgeqwen-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@NEEDS_POSIX
@pytest.mark.processes
def test_permission_denied(open_folder: Path) -> None:
    folder = open_folder
    for name, mode, folder_mode in (
        ("fixed/session", 0o444, 0o555),  # a folder in which nothing can be made
        ("locked/session", 0o600, 0o700),  # of another user
        ("secret/session", 0o400 if os.getuid() == 0 else 0o000, 0o777),
        ("readable/session", 0o444, 0o777),
    ):
        path = folder / name
        path.parent.mkdir()
        create(path, [1, 2]).close()
        for file in path.parent.glob(".*.lock"):
            file.unlink()
        path.chmod(mode)
        path.parent.chmod(folder_mode if os.getuid() == 0 or "locked" not in name else 0)
    names = [f"{name}/session" for name in ("fixed", "locked", "secret", "readable")]
    try:
        found = run(AS_NOBODY, folder, *names)
    finally:
        for path in folder.iterdir():
            path.chmod(0o755)
    fixed, locked, secret, readable = (found[i : i + 3] for i in range(0, 12, 3))
    denied = "can't be locked: Permission denied; make its folder writable, or take a copy"
    assert all(denied in line and "DiskError" in line for line in (fixed[0], fixed[2]))
    assert fixed[1] == "2"
    enter = f"SessionError {folder}/locked/session: permission denied; make its folder readable"
    assert locked[0] == locked[1] == enter
    assert denied in locked[2]
    refused = f"SessionError {folder}/secret/session: can't be read: Permission denied"
    assert secret[0] == secret[1] == refused
    assert readable[0] == (
        f"DiskError {folder}/readable/session: can't be written: permission denied; make it and "
        "its folder writable, or name another place"
    )
    assert readable[1] == "2"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, FULL),
        (errno.EDQUOT, FULL),
        (errno.EFBIG, FULL),
        (errno.EROFS, "can't be written: the file system is read-only; name another place"),
        (errno.EACCES, "can't be written: permission denied; make it and its folder writable"),
        (errno.EIO, "can't be written: Input/output error"),
    ],
)
def test_what_the_system_refuses_is_told(number: int, message: str) -> None:
    with pytest.raises(DiskError, match=f"^a/b: {message}"), refusals(Path("a/b")):
        raise OSError(number, os.strerror(number))


def test_a_disk_that_fails_while_sealing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = create(tmp_path / "session", random_ids(30))

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match="can't be written: Input/output error"):
        session.close()
    monkeypatch.undo()
    session = SessionFile.open(tmp_path / "session", IDENTITY)
    assert holds(session, random_ids(30))
    session.close()


@pytest.mark.parametrize("refused", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_room_is_made_and_what_there_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int | None
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"kept")

    def refuse(*_: int) -> None:
        raise OSError(refused, "refused")

    if refused is not None:
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with path.open("r+b") as file:
        allocate(file.fileno(), 0, 3_000_000, path)
        allocate(file.fileno(), 1_000_000, 1000, path)
    assert path.read_bytes() == b"kept".ljust(3_000_000, b"\0")
    if hasattr(path.stat(), "st_blocks"):
        assert path.stat().st_blocks * 512 >= 2_900_000


def test_a_replacement_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacement(path) as handle:
            os.write(handle, b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    with replacement(path) as handle:
        os.write(handle, b"new")
        assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_replacement_is_not_written_through_what_others_have_put_there(tmp_path: Path) -> None:
    (tmp_path / ".file.new").symlink_to(tmp_path / "victim")
    (tmp_path / "victim").write_bytes(b"kept")
    with replacement(tmp_path / "file") as handle:
        os.write(handle, b"new")
    assert (tmp_path / "victim").read_bytes() == b"kept"
    assert not (tmp_path / "file").is_symlink()


def test_the_boot_is_known_where_the_system_tells() -> None:
    found = boot_identity()
    assert len(found) == 16
    assert found == boot_identity()
    if sys.platform == "linux":
        text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert found.hex() == text.replace("-", "")


def run(program: str, *arguments: object) -> list[str]:
    """Runs a program and returns the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()
