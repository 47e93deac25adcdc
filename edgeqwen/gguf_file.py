"""GgufFile: a GGUF file mapped into memory, checked from end to end before anything is used."""

import contextlib
import mmap
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeqwen.config import ModelConfig
from edgeqwen.config_keys import shown
from edgeqwen.errors import ClosedError, FileFormatError, UnsupportedError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_metadata import HeaderReader, read_metadata, read_preamble
from edgeqwen.gguf_tensors import TensorInfo, check_shapes, read_alignment, read_tensors

__all__ = ["GgmlType", "GgufFile", "TensorInfo"]


class GgufFile:
    """A GGUF file (version 2 or 3, little-endian) with read-only views of its tensors.

    ``metadata`` holds Python scalars, strings and read-only sequences by key; ``tensors`` holds a
    TensorInfo by name, in the order of the file; ``size`` is in bytes. Both outlive ``close()``.
    Nobody may cut the file short while it is open: the system would end the process.
    """

    path: Path
    version: int
    alignment: int
    size: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        reader = HeaderReader(mapping, str(path))
        self.path = path
        self.size = len(mapping)
        self.version, n_tensors, n_keys = read_preamble(reader)
        self.metadata = read_metadata(reader, n_keys)
        n_shards = self.metadata.get("split.count", 0)
        if n_shards not in (0, 1):
            raise UnsupportedError(
                f"{path}: split.count is {shown(n_shards)}: one shard of a model in several files, "
                "which this version can't read; merge them with `llama-gguf-split --merge`"
            )
        self.alignment = read_alignment(self.metadata, str(path))
        self.tensors = read_tensors(reader, n_tensors, self.alignment)
        self._mapping: mmap.mmap | None = mapping
        self._bytes: npt.NDArray[np.uint8] | None = np.frombuffer(mapping, np.uint8)

    @classmethod
    def open(cls, path: str | Path) -> "GgufFile":
        """Maps a file and checks its header and the place of every tensor.

        Raises FileFormatError for a file that is missing, unreadable, damaged or no GGUF, and
        UnsupportedError for a sound one that this version can't read.
        """
        path = Path(path)
        mapping = _map(path)
        try:
            return cls(path, mapping)
        except BaseException:
            _unmap(mapping)
            raise

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns a tensor's bytes as they lie in the file: a read-only uint8 view [n_bytes].

        The view keeps the mapping alive, beyond ``close()`` too. Raises ClosedError after
        ``close()`` and KeyError for a name that isn't in ``tensors``.
        """
        tensor = self.tensors[name]
        if self._bytes is None:
            raise ClosedError(f"{self.path}: the file was closed, {name} can't be read any more")
        return self._bytes[tensor.offset : tensor.offset + tensor.n_bytes]

    def release(self, name: str) -> None:
        """Lets the system take back the memory of a tensor's pages; reading loads them again."""
        tensor = self.tensors[name]
        if self._mapping is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        # Only whole pages: those at the ends may hold parts of other tensors.
        start = -(-tensor.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (tensor.offset + tensor.n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop:
            with contextlib.suppress(OSError):
                self._mapping.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def config(self) -> ModelConfig:
        """Reads the configuration and checks that every tensor is there and in shape.

        Raises FileFormatError for a file that contradicts itself, UnsupportedError for a model
        that can't be run.
        """
        embedding = self.tensors.get("token_embd.weight")
        config = ModelConfig.from_gguf(
            self.metadata,
            source=str(self.path),
            vocab_size=embedding.shape[0] if embedding else None,
            tied="output.weight" not in self.tensors,
        )
        check_shapes(self.tensors, config, str(self.path))
        return config

    def close(self) -> None:
        """Gives the mapping back, once no view of it is left; may be called twice."""
        mapping, self._mapping, self._bytes = self._mapping, None, None
        if mapping is not None:
            _unmap(mapping)

    def __enter__(self) -> "GgufFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _map(path: Path) -> mmap.mmap:
    """Maps a regular file for reading."""
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


def _unmap(mapping: mmap.mmap) -> None:
    # Where views are still held, the mapping goes with the last of them.
    with contextlib.suppress(BufferError):
        mapping.close()
