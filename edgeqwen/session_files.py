"""The session files of a user: where they are, what is in them; checked, copied and deleted."""

import contextlib
import stat
from pathlib import Path
from typing import Any

from edgeqwen.cache.disk import aside
from edgeqwen.cache.session_copies import copy_session
from edgeqwen.cache.session_lock import SessionLock, lock_path
from edgeqwen.cache.session_paths import check_is_file, real_path
from edgeqwen.cache.session_state import opened, salvage
from edgeqwen.cache.verify import SessionSummary, Verification, summarize, verify
from edgeqwen.errors import DiskError, EdgeqwenError
from edgeqwen.folders import user_sessions
from edgeqwen.transcript import Transcript

__all__ = [
    "SUFFIX",
    "SessionSummary",
    "Verification",
    "cache_type",
    "copy",
    "delete",
    "messages",
    "session_path",
    "sessions",
    "summarize",
    "verify",
]

SUFFIX = ".session"


def session_path(name: str) -> Path:
    """Returns the file of a session: a plain name is one in the user's own folder."""
    path = Path(name)
    if path.name == name and path.suffix != SUFFIX and name not in ("", ".", ".."):
        return user_sessions() / f"{name}{SUFFIX}"
    return path


def sessions() -> list[Path]:
    """Returns the sessions in the user's own folder, the one that was used last first."""
    found = []
    for path in user_sessions().glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((-status.st_mtime, path))
    return [path for _, path in sorted(found)]


def messages(path: Path) -> list[dict[str, Any]]:
    """Returns the messages of a session, but for an answer under way. Raises SessionError."""
    summarize(path)  # says what is wrong with a file that is no session
    return Transcript.decode(salvage(path)[0], path).messages


def cache_type(path: Path) -> str | None:
    """Returns how a session keeps keys and values; None where that can't be told."""
    with contextlib.suppress(EdgeqwenError), opened(path) as (_, identity):
        return identity.layout.cache_type
    return None


def copy(source: Path, target: Path) -> None:
    """Copies a session, which may be open elsewhere. Raises SessionError and DiskError."""
    copy_session(source, target)


def delete(path: Path) -> None:
    """Deletes a session that isn't open, by whatever name. Raises SessionError and DiskError."""
    check_is_file(path)  # a clear error before there is a lock
    real = real_path(path)
    lock = SessionLock.acquire(real)
    try:
        for file in {real, path, aside(real), lock_path(real)}:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(f"{path}: can't be deleted: {error.strerror or error}") from error
    finally:
        lock.release()
