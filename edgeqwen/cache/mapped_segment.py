"""A segment of a session file, mapped into memory."""

import contextlib
import mmap

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.session_format import KV_OFFSET, SEAL_OFFSET, Extent
from edgeqwen.kernels.attention_types import SEGMENT


class MappedSegment:
    """The extent of a segment; see ``edgeqwen.cache.sequence.Segment``.

    ``tokens`` and ``ids`` are the same memory, int32 [256]: as an array, and, as quick as a list
    for a few of them, as a memoryview.
    """

    def __init__(self, handle: int, extent: Extent, kv_bytes: int, access: int) -> None:
        """``access`` is ``mmap.ACCESS_READ``, ACCESS_WRITE, or ACCESS_COPY for writing aside."""
        self.extent = extent
        size = KV_OFFSET + kv_bytes
        self._mapping = mmap.mmap(handle, size, access=access, offset=extent.offset)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._mapping, np.uint8)
        self.tokens = self._bytes[: 4 * SEGMENT].view(np.int32)
        self.ids = memoryview(self._mapping)[: 4 * SEGMENT].cast("i")
        self._seal = self._bytes[SEAL_OFFSET : SEAL_OFFSET + 8].view(np.uint64)
        self.address = int(self._bytes.ctypes.data) + KV_OFFSET

    @property
    def seal(self) -> tuple[int, int]:
        """How many positions the checksum covers, and the checksum; zeros where there is none."""
        both = int(self._seal[0])
        return both & 0xFFFFFFFF, both >> 32

    @seal.setter
    def seal(self, seal: tuple[int, int]) -> None:
        # One store, so that whoever kills the process leaves the old seal or the new one.
        self._seal[0] = seal[0] | seal[1] << 32

    def view(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Returns a uint8 view of some bytes of the keys and values."""
        return self._bytes[KV_OFFSET + offset : KV_OFFSET + offset + size]

    def flush(self) -> None:
        """Writes it to the disk."""
        self._mapping.flush()

    def close(self) -> None:
        """Unmaps it. Nothing may use its addresses any more."""
        empty = np.zeros(0, np.uint8)
        self._bytes, self.tokens, self._seal = empty, empty.view(np.int32), empty.view(np.uint64)
        self.ids.release()
        with contextlib.suppress(BufferError):
            self._mapping.close()
