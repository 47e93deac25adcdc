"""Arrays in a temporary file: memory that the system may move to the disk when it runs short."""

import mmap
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import EdgeqwenError


class Workspace:
    """Hands out arrays of zeros in files without a name, in ``folder``; a context manager.

    Raises EdgeqwenError if the disk hasn't enough room.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Any] = []
        self._maps: list[mmap.mmap] = []

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()
        self._maps.clear()

    def array(self, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        """Returns an array of zeros."""
        n_bytes = max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        try:
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed at the end
            self._files.append(file)
            # A disk that fills up later would end the process at some write to memory.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
            memory = mmap.mmap(file.fileno(), n_bytes)
            self._maps.append(memory)
        except OSError as error:
            raise EdgeqwenError(
                f"{self._folder}: no room for {n_bytes / 1e6:.0f} MB of activations "
                f"({error.strerror}); free some, calibrate with fewer tokens, or write elsewhere"
            ) from None
        return np.frombuffer(memory, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)

    def release(self) -> None:
        """Gives up the memory that arrays take: what they hold is in their files, and comes back.

        Without it, the system would keep all that was touched until it runs short of memory.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            for memory in self._maps:
                memory.madvise(mmap.MADV_DONTNEED)
