"""Memory that holds machine code: written first, then made executable, for good."""

import ctypes
import functools
import mmap
import os
import sys

PROT_READ_EXECUTE = 1 | 4


@functools.cache
def is_supported() -> bool:
    """Whether machine code can be put into memory here: on Linux, on x86 with 64 bits.

    There, a core sees by itself that code was written; others must be told. Elsewhere LLVM does
    what this module would do.
    """
    return sys.platform == "linux" and os.uname().machine == "x86_64" and sys.maxsize > 2**32


class CodeMemory:
    """``size`` bytes, zero at first. Write to ``bytes``, then call ``seal``."""

    def __init__(self, size: int) -> None:
        mapping = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._size = len(mapping)
        self._first = ctypes.c_char.from_buffer(mapping)  # keeps it from being unmapped
        self.address = ctypes.addressof(self._first)
        self.bytes = memoryview(mapping)

    def seal(self) -> None:
        """Makes the memory executable, and no longer writable.

        Raises OSError where the system doesn't allow it.
        """
        self.bytes = memoryview(b"")
        system = ctypes.CDLL(None, use_errno=True)
        address, size = ctypes.c_void_p(self.address), ctypes.c_size_t(self._size)
        if system.mprotect(address, size, ctypes.c_int(PROT_READ_EXECUTE)):
            code = ctypes.get_errno()
            raise OSError(code, f"memory can't be made executable: {os.strerror(code)}")
        _kept.append(self)


# Whoever has an address may call it as long as the process lives.
_kept: list[CodeMemory] = []
