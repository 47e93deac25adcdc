"""A file that appears under its name only once it is complete."""

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from edgeqwen.errors import EdgeqwenError, OptionError


class AtomicFile:
    """Writes a file under a hidden name beside the final one; a context manager.

    Leaving the block without an exception stores everything on the disk and moves the file into
    place, over one that stands there; any exception, KeyboardInterrupt too, removes it. A process
    that is killed leaves at most the hidden file. Raises OptionError if the place can't be
    written to, EdgeqwenError if writing fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = threading.Lock()
        # A link is written through, not replaced.
        self._target = Path(os.path.realpath(path))
        self._temporary = _hidden_name(self._target)

    def __enter__(self) -> "AtomicFile":
        check_writable(self.path)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        try:
            self._file = os.fdopen(os.open(self._temporary, flags, 0o666), "wb", 1 << 16)
        except OSError as error:
            raise OptionError(
                f"{self.path}: can't be written ({error.strerror}); choose another output"
            ) from None
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from None

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Puts bytes at a place in the file; several threads may at the same time."""
        rest = memoryview(data)
        try:
            while rest:
                n = self._put(offset, rest)
                offset, rest = offset + n, rest[n:]
        except OSError as error:
            raise self._failed(error) from None

    def resize(self, size: int) -> None:
        """Makes the file so many bytes long; what isn't written reads as zeros."""
        try:
            self._file.truncate(size)
        except OSError as error:
            raise self._failed(error) from None

    def _put(self, offset: int, data: memoryview) -> int:
        """Returns how many bytes were put; at least one."""
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), data, offset)
        with self._turn:
            self._file.seek(offset)
            return self._file.write(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._commit()
        except OSError as problem:
            raise self._failed(problem) from None
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _commit(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._target)
        if hasattr(os, "O_DIRECTORY"):
            # The new name is safe only when the folder is on the disk, too.
            with contextlib.suppress(OSError):
                folder = os.open(self._target.parent, os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)

    def _failed(self, error: OSError) -> EdgeqwenError:
        return EdgeqwenError(f"{self.path}: writing failed ({error.strerror}); nothing was kept")


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Gives the name of a file for steps between, in the folder of a path, and removes it then."""
    check_writable(path)
    name = _hidden_name(Path(os.path.realpath(path)))
    try:
        yield name
    finally:
        name.unlink(missing_ok=True)


def _hidden_name(path: Path) -> Path:
    # A file's name may have 255 bytes; 50 characters have at most 200.
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(6)}.tmp")


def check_writable(path: Path) -> None:
    """Raises OptionError if no regular file can come to stand at a path.

    The folder must be writable, and not a file that stands there: it is replaced.
    """
    if path.is_dir():
        raise OptionError(f"{path}: is a folder; give the name of a file in it")
    if path.exists() and not path.is_file():
        raise OptionError(f"{path}: exists and is no regular file; choose another output")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OptionError(f"{path}: the folder {path.parent} doesn't exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(
            f"{path}: the folder {folder} can't be written to; change its permissions, or choose "
            "another"
        )
