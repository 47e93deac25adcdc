"""The session files of a user: where they are, what is in them; checked, copied and deleted."""

from pathlib import Path
from typing import Any

from edgeqwen.cache.session_copies import copy_session
from edgeqwen.cache.session_lock import SessionLock, lock_path
from edgeqwen.cache.session_state import salvage
from edgeqwen.cache.verify import SessionSummary, Verification, summarize, verify
from edgeqwen.errors import DiskError, SessionError
from edgeqwen.folders import user_sessions
from edgeqwen.transcript import Transcript

__all__ = [
    "SUFFIX",
    "SessionSummary",
    "Verification",
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
    found = [path for path in user_sessions().glob(f"*{SUFFIX}") if path.is_file()]
    return sorted(found, key=lambda path: -path.stat().st_mtime)


def messages(path: Path) -> list[dict[str, Any]]:
    """Returns the messages of a session, but for an answer under way. Raises SessionError."""
    summarize(path)  # says what is wrong with a file that is no session
    return Transcript.decode(salvage(path)[0], path).messages


def copy(source: Path, target: Path) -> None:
    """Copies a session, which may be open elsewhere. Raises SessionError and DiskError."""
    copy_session(source, target)


def delete(path: Path) -> None:
    """Deletes a session. Raises SessionError, also for one that is open, and DiskError."""
    if not path.is_file():
        raise SessionError(f"{path}: no such session")
    lock = SessionLock.acquire(path)
    try:
        path.unlink()
        lock_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(f"{path}: can't be deleted: {error.strerror or error}") from error
    finally:
        lock.release()
