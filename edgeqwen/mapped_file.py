"""A regular file mapped into memory for reading, whose memory can be given up."""

import contextlib
import ctypes
import functools
import mmap
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import FileFormatError

_MADV_POPULATE_READ = 22  # Linux; Python has no name for it
_POPULATED_BYTES = 16 << 20


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


def read_ahead(mapping: mmap.mmap) -> Callable[[], None]:
    """Has a file read that will be needed in whole, by a thread that isn't waited for.

    Returns a function that ends it soon. In huge pages, where the file system has them: reading all
    of a file in small ones takes a third more time, again and again. Elsewhere than on Linux, the
    system is only told.
    """
    stopped = threading.Event()
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_HUGEPAGE)
        view = np.frombuffer(mapping, np.uint8)
        populate = functools.partial(_populate, view, stopped)
        threading.Thread(target=populate, name="edgeqwen-map", daemon=True).start()
    elif hasattr(mmap, "MADV_WILLNEED"):
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_WILLNEED)
    return stopped.set


def _populate(view: npt.NDArray[np.uint8], stopped: threading.Event) -> None:
    """Puts a file's pages in their places: whoever touches them in turn is stopped by each."""
    madvise = ctypes.CDLL(None).madvise  # without the GIL, unlike Python's own
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start in range(0, len(view), _POPULATED_BYTES):
        part = view[start : start + _POPULATED_BYTES]
        if stopped.is_set() or madvise(part.ctypes.data, part.nbytes, _MADV_POPULATE_READ) != 0:
            return  # Linux before 5.14


def forget(path: Path) -> None:
    """Lets the system drop what it holds of a file that was just written and stored.

    It holds it in small pages, in which ``read_ahead`` would find it.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def unmap(mapping: mmap.mmap) -> None:
    # Where views are still held, the mapping goes with the last of them.
    with contextlib.suppress(BufferError):
        mapping.close()
