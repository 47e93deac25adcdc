"""Room on a disk, asked for before it is written to: a full disk is then an error and no crash.

Writing to a mapped file for which there is no room ends the process. So room is allocated first,
where the system can; where it can't, zeros are written.
"""

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edgeqwen.errors import DiskError

# Left over where the file system may need room for what was allocated already (copy on write).
SPARE_BYTES = 16 << 20
_ZEROS = bytes(1 << 20)

BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags with which every file is opened."""


def allocate(handle: int, offset: int, size: int, path: Path) -> None:
    """Makes sure that bytes [offset, offset + size) of a file are on the disk; they may be zero.

    What the file holds there is kept. Raises DiskError when the disk is full.
    """
    with refusals(path):
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, offset, size)
                return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        length = os.fstat(handle).st_size
        for start in range(max(offset, length), offset + size, len(_ZEROS)):
            write(handle, start, _ZEROS[: offset + size - start])


def disk_full(path: Path) -> DiskError:
    """Returns the error of a disk, or of a quota, that has no room left for a file."""
    return DiskError(
        f"{path}: there is no room left on the disk; free some and go on. What was stored before "
        "is kept"
    )


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turns the system's refusals to write a file into DiskError."""
    try:
        yield
    except PermissionError as error:
        raise DiskError(
            f"{path}: can't be written: permission denied; make it and its folder writable, or "
            "name another place"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_full(path) from error
        if error.errno == errno.EROFS:
            raise DiskError(
                f"{path}: can't be written: the file system is read-only; name another place"
            ) from error
        raise DiskError(f"{path}: can't be written: {error.strerror or error}") from error


def write(handle: int, offset: int, data: bytes | memoryview) -> None:
    """Writes all of the data. Raises OSError."""
    os.lseek(handle, offset, os.SEEK_SET)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def aside(path: Path) -> Path:
    """Returns the name under which a file is written before it takes its place."""
    return path.with_name(f".{path.name}.new")


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[int]:
    """Yields the handle of a new file, which takes the place of ``path`` at the end.

    Only the user may read it. Whoever kills the process leaves no half of a file under the name,
    and after a failure there is none. Raises DiskError. One process at a time may do it.
    """
    made = aside(path)
    with refusals(path):
        made.unlink(missing_ok=True)  # of a process that was killed
        handle = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
    try:
        try:
            yield handle
            with refusals(path):
                sync(handle)
        finally:
            os.close(handle)  # Windows renames no open file
        with refusals(path):
            os.replace(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def sync(handle: int) -> None:
    """Returns when a file is on the disk, and not only in the drive's memory. Raises OSError."""
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # file systems that know it not
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    """Writes the names of a folder's files to the disk, where the system knows that."""
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def boot_identity() -> bytes:
    """Returns 16 bytes that are others after the system was started anew; zeros if unknown.

    What a process wrote to a mapped file outlives the process, but not the system.
    """
    with contextlib.suppress(OSError, ValueError):
        if sys.platform == "linux":
            text = Path("/proc/sys/kernel/random/boot_id").read_text()
            return bytes.fromhex(text.strip().replace("-", ""))
        if sys.platform == "darwin":
            buffer = ctypes.create_string_buffer(64)
            size = ctypes.c_size_t(64)
            name = b"kern.bootsessionuuid"
            if ctypes.CDLL(None).sysctlbyname(name, buffer, ctypes.byref(size), None, 0) == 0:
                return bytes.fromhex(buffer.value.decode().replace("-", ""))
    return bytes(16)
