"""Anonymous mapped memory: zero until touched, aligned to pages, and given back on close."""

import contextlib
import mmap
import sys

import numpy as np
from numpy.typing import NDArray

from edgeqwen.errors import OptionError

# Linux: don't reserve swap for what may never be touched. Python names it from 3.13 on.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000) if sys.platform == "linux" else 0


class Region:
    """``size`` bytes of memory that is taken from the system only as it is written.

    ``huge`` asks for huge pages: for memory that will be filled and then read in whole.
    Raises OptionError, saying what ``purpose`` needs, when the system has not so much.
    """

    def __init__(self, size: int, *, purpose: str, huge: bool = False) -> None:
        try:
            if sys.platform == "win32":
                self._mapping = mmap.mmap(-1, max(size, 1))
            else:
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
                self._mapping = mmap.mmap(-1, max(size, 1), flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            raise OptionError(
                f"{purpose} needs {size / 1e9:.1f} GB of address space, which the system refuses: "
                f"{error}"
            ) from error
        if huge and hasattr(mmap, "MADV_HUGEPAGE"):
            # A wish that kernels built without huge pages refuse.
            with contextlib.suppress(OSError):
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._mapping, np.uint8, size)
        self.address = int(self._bytes.ctypes.data)

    def view(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Returns a uint8 view, which keeps the memory alive beyond ``close``."""
        return self._bytes[offset : offset + size]

    def close(self) -> None:
        """Gives the memory back. Nothing may use its addresses any more."""
        self._bytes = np.zeros(0, np.uint8)
        # Where somebody still holds a view (of logits, say), the memory goes with the last one.
        with contextlib.suppress(BufferError):
            self._mapping.close()
