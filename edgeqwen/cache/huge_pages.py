"""Huge pages under memory that is filled once and then read in whole: small ones, put together.

Reading goes up to half again as fast through huge pages. But where they come from memory that was
not in use lately, they come late: in a virtual machine whose host must first find it, each takes
milliseconds. Small pages mostly come from memory that was; so the memory is filled through these,
and they are put together in the background once nobody waits for them.
"""

import ctypes
import functools
import mmap
import sys
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGE_BYTES = 2 << 20
# The first token comes first; then this takes no more than this part of the time of one core.
PATIENCE_SECONDS = 0.5
SHARE = 0.5
# After so many failures in a row, the system has no huge pages left.
MOST_IN_VAIN = 8

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MADV_COLLAPSE = 25  # Linux 6.1


@functools.cache
def can_come_later() -> bool:
    """Whether the system makes huge pages of small ones on request."""
    try:
        setting = _SETTING.read_text()
    except OSError:
        return False
    # Of no bytes: that does nothing, and succeeds where it is known what is asked for.
    return "[never]" not in setting and mmap.PAGESIZE == 4096 and _collapse(0, 0)


class HugePages:
    """Makes huge pages of the small ones under a view of memory, uint8, which it keeps alive."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        address = int(memory.ctypes.data)
        first = -(-address // PAGE_BYTES) * PAGE_BYTES
        self._pages = range(first, address + memory.nbytes - PAGE_BYTES + 1, PAGE_BYTES)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeqwen-pages", daemon=True)

    def start(self) -> None:
        """Begins, and returns at once. The memory must be filled by now."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it, so that the memory can be given back."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        pause, in_vain = PATIENCE_SECONDS, 0
        for page in self._pages:
            if self._stopped.wait(pause) or in_vain == MOST_IN_VAIN:
                return
            began = time.perf_counter()
            in_vain = 0 if _collapse(page, PAGE_BYTES) else in_vain + 1
            pause = (time.perf_counter() - began) * (1 - SHARE) / SHARE


def _collapse(address: int, size: int) -> bool:
    if sys.platform != "linux":
        return False
    done = ctypes.CDLL(None).madvise(
        ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_int(_MADV_COLLAPSE)
    )
    return bool(done == 0)
