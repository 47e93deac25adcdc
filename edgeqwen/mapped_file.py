"""A regular file mapped into memory for reading, whose memory can be given up."""

import contextlib
import mmap
import os
import stat
from pathlib import Path

from edgeqwen.errors import FileFormatError


def map_file(path: Path) -> mmap.mmap:
    """Maps a GGUF file. Raises FileFormatError for what is missing, empty or no regular file."""
    try:
        status = os.stat(path)
        # Before opening it: opening a pipe would wait for a writer.
        if stat.S_ISDIR(status.st_mode):
            convert = "; convert it with `edgeqwen quantize`" if _is_checkpoint(path) else ""
            raise FileFormatError(f"{path}: is a folder, expected a GGUF file{convert}")
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{path}: is no regular file, expected a GGUF file")
        if status.st_size == 0:
            raise FileFormatError(f"{path}: is empty, expected a GGUF file; download it again")
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: no such file") from None
    except PermissionError:
        raise FileFormatError(f"{path}: permission denied; make the file readable") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileFormatError(f"{path}: can't be opened: {reason}") from None


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").exists()


def release(mapping: mmap.mmap, start: int, stop: int) -> None:
    """Lets the system take back the memory of a file's bytes [start, stop).

    Reading them loads them again, and so it does what else is in their pages.
    """
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    if hasattr(mmap, "MADV_DONTNEED") and stop > first:
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_DONTNEED, first, stop - first)


def read_ahead(mapping: mmap.mmap) -> None:
    """Has the system begin to read a file that will be needed in whole."""
    if hasattr(mmap, "MADV_WILLNEED"):
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_WILLNEED)


def unmap(mapping: mmap.mmap) -> None:
    # Where views are still held, the mapping goes with the last of them.
    with contextlib.suppress(BufferError):
        mapping.close()
