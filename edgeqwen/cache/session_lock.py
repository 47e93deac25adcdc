"""Who may write a session: one process, and in it one ``SessionFile``."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgeqwen.errors import DiskError, SessionLockedError

if TYPE_CHECKING:
    from filelock import FileLock


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
            raise SessionLockedError(
                f"{path}: is open in another program or another conversation; close it there, or "
                "take a copy of it (fork, --fork)"
            ) from None
        except (OSError, NotImplementedError) as error:  # the latter: no locks in this file system
            reason = getattr(error, "strerror", None) or error
            raise DiskError(
                f"{path}: can't be locked: {reason}; make its folder writable, or take a copy of "
                "the session elsewhere (fork, --fork)"
            ) from error
        return cls(lock)

    def release(self) -> None:
        """Lets others write. Idempotent."""
        with contextlib.suppress(OSError):
            self._lock.release()
