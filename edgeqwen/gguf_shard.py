"""GgufShard: one GGUF file mapped into memory, checked from end to end before anything is used."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeqwen.config_keys import shown
from edgeqwen.errors import ClosedError, FileFormatError
from edgeqwen.gguf_metadata import HeaderReader, read_metadata, read_preamble
from edgeqwen.gguf_packed import described
from edgeqwen.gguf_tensors import TensorInfo, read_alignment, read_tensors
from edgeqwen.mapped_file import map_file, read_ahead, release, unmap

# As many as a name of five digits could count; no published model comes near.
_MAX_SHARDS = 9999


class GgufShard:
    """A GGUF file (version 2 or 3, little-endian) with read-only views of its tensors.

    ``n_shards`` says how many files the model is in, ``index`` which of them this is, from 0.
    """

    path: Path
    version: int
    alignment: int
    size: int
    n_shards: int
    index: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        reader = HeaderReader(mapping, str(path))
        self.path = path
        self.size = len(mapping)
        self.version, n_tensors, n_keys = read_preamble(reader)
        self.metadata = read_metadata(reader, n_keys)
        # Files of one shard may count themselves, or none.
        self.n_shards = max(1, self._count("split.count", 0, _MAX_SHARDS))
        self.index = self._count("split.no", 0, self.n_shards - 1)
        self.alignment = read_alignment(self.metadata, str(path))
        tensors = read_tensors(reader, n_tensors, self.alignment)
        self.tensors = described(tensors, self.metadata, str(path))
        # All that was read is a copy.
        release(mapping, 0, reader.position)
        self._mapping: mmap.mmap | None = mapping
        self._bytes: npt.NDArray[np.uint8] | None = np.frombuffer(mapping, np.uint8)

    @classmethod
    def open(cls, path: Path) -> "GgufShard":
        """Maps a file and checks its header and the place of every tensor.

        Raises FileFormatError for a file that is missing, unreadable, damaged or no GGUF, and
        UnsupportedError for a sound one that this version can't read.
        """
        mapping = map_file(path)
        try:
            return cls(path, mapping)
        except BaseException:
            unmap(mapping)
            raise

    def data(self, tensor: TensorInfo) -> npt.NDArray[np.uint8]:
        """Returns the bytes of one of its tensors, or of rows of one: a read-only uint8 view.

        Raises ClosedError after ``close()``.
        """
        if self._bytes is None:
            raise ClosedError(
                f"{self.path}: the file was closed, {tensor.name} can't be read any more"
            )
        return self._bytes[tensor.offset : tensor.offset + tensor.n_bytes]

    def release(self, tensor: TensorInfo, start: int, stop: int) -> None:
        """Lets the system take back the memory of bytes [start, stop) of a tensor."""
        if self._mapping is not None:
            release(self._mapping, tensor.offset + start, tensor.offset + stop)

    def read_ahead(self) -> Callable[[], None]:
        """Has the system begin to read all of the file, which will be needed soon.

        Returns a function that ends it. Raises ClosedError after ``close()``.
        """
        if self._mapping is None:
            raise ClosedError(f"{self.path}: the file was closed and can't be read any more")
        return read_ahead(self._mapping)

    def close(self) -> None:
        """Gives the mapping back, once no view of it is left; may be called twice."""
        mapping, self._mapping, self._bytes = self._mapping, None, None
        if mapping is not None:
            unmap(mapping)

    def _count(self, key: str, least: int, most: int) -> int:
        value = self.metadata.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise FileFormatError(
                f"{self.path}: {key} is {shown(value)}, expected a number from {least} to {most}; "
                "the file is damaged: download it again"
            )
        return value
