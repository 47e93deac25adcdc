"""Who may write a session: one process, and in it one ``SessionFile``.

A file beside the session is locked, for the session itself may be replaced; and so is the session,
for it may have been given another name.
"""

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeqwen.errors import DiskError, SessionLockedError

if TYPE_CHECKING:
    from filelock import FileLock


_BEYOND = (1 << 62) - 1


def lock_path(path: Path) -> Path:
    """Returns the file that is locked in a session's place: the session itself may be replaced."""
    return path.with_name(f".{path.name}.lock")


class SessionLock:
    """The right to write one session. The system takes it back when the process ends."""

    def __init__(self, lock: "FileLock") -> None:
        self._lock = lock

    @classmethod
    def acquire(cls, path: Path) -> "SessionLock":
        """Locks a session, or raises SessionLockedError at once; DiskError where it can't be."""
        if not path.parent.is_dir():  # filelock would make one
            raise DiskError(
                f"{path}: can't be made: there is no folder {path.parent}; make it, or name "
                "another place"
            )
        import filelock  # takes as long as half of a start

        # Not a singleton: a second opener in this process is a second opener.
        # Not thread-local: a conversation may be closed, or forgotten, in another thread.
        lock = filelock.FileLock(
            lock_path(path), timeout=0, mode=0o600, is_singleton=False, thread_local=False
        )
        try:
            lock.acquire()
        except filelock.Timeout:
            raise _is_open(path) from None
        except (OSError, NotImplementedError) as error:  # the latter: no locks in this file system
            reason = getattr(error, "strerror", None) or error
            if getattr(error, "errno", None) == errno.ENAMETOOLONG:
                raise DiskError(f"{path}: can't be locked: {reason}; name it shorter") from error
            raise DiskError(
                f"{path}: can't be locked: {reason}; make its folder writable, or take a copy of "
                "the session elsewhere (fork, --fork)"
            ) from error
        return cls(lock)

    def release(self) -> None:
        """Lets others write. Idempotent."""
        with contextlib.suppress(OSError):
            self._lock.release()


def lock_handle(handle: int, path: Path) -> None:
    """Locks an open session, by whatever name it was opened, until its handle is closed.

    Raises SessionLockedError.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            # Locked bytes can't be read by others there: one that no session has.
            os.lseek(handle, _BEYOND, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise _is_open(path) from error
        # Other file systems than those of the system's own disks may know no such locks.


def _is_open(path: Path) -> SessionLockedError:
    return SessionLockedError(
        f"{path}: is open in another program or another conversation; close it there, or take a "
        "copy of it (fork, --fork)"
    )
