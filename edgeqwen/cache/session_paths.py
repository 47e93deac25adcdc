"""Session files by their names: found, and opened."""

import os
from pathlib import Path

from edgeqwen.cache.disk import BINARY, refusals
from edgeqwen.errors import SessionError


def open_session(path: Path, flags: int) -> int:
    """Opens a session file; returns its handle. Raises SessionError and DiskError."""
    check_is_file(path)
    if flags == os.O_RDONLY:
        try:
            return os.open(path, flags | BINARY)
        except OSError as error:
            raise SessionError(f"{path}: can't be read: {error.strerror or error}") from error
    with refusals(path):
        return os.open(path, flags | BINARY)


def check_is_file(path: Path) -> None:
    """Raises SessionError for what can't be a session: opening a pipe would wait for a writer."""
    try:
        if not path.is_file():
            what = "is no regular file, expected a session" if exists(path) else "no such session"
            raise SessionError(f"{path}: {what}")
    except OSError as error:
        raise _unreachable(path, error) from error


def real_path(path: Path) -> Path:
    """Returns a file's only name: absolute and without links, so that all lock the same file."""
    return Path(os.path.realpath(path))


def exists(path: Path) -> bool:
    """Whether there is a file of that name. Raises SessionError where that can't be told."""
    try:
        return path.exists()
    except OSError as error:
        raise _unreachable(path, error) from error


def _unreachable(path: Path, error: OSError) -> SessionError:
    if isinstance(error, PermissionError):
        return SessionError(f"{path}: permission denied; make its folder readable")
    return SessionError(f"{path}: can't be read: {error.strerror or error}")
