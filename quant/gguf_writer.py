"""Writes a GGUF file as a stream: the whole header first, then the tensors in its order."""

import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgeqwen.errors import EdgeqwenError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.atomic_file import AtomicFile
from edgeqwen.quant.gguf_values import MetadataValue, encode_metadata, encode_string

_VERSION = 3
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the file to be; ``shape`` in numpy order (rows, columns)."""

    name: str
    type: GgmlType
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return self.type.n_bytes(self.shape)


class GgufWriter:
    """A GGUF file under construction; a context manager.

    Every offset is known from the start, so that nothing has to be kept: entering writes the
    header, ``write`` appends data. ``size`` is that of the file to be, ``position`` where what
    comes next belongs. Raises EdgeqwenError if the disk hasn't enough room, and what AtomicFile
    raises.
    """

    def __init__(
        self,
        path: Path,
        metadata: Mapping[str, MetadataValue],
        tensors: Sequence[PlannedTensor],
    ) -> None:
        self._tensors = tensors
        self._header = _header(metadata, tensors)
        self._file = AtomicFile(path)
        self.position = 0
        self.size = len(self._header) + sum(_padded(tensor.n_bytes) for tensor in tensors)

    def __enter__(self) -> "GgufWriter":
        self._file.__enter__()
        try:
            self._check_room()
            self._file.resize(self.size)
            self.write(self._header)
        except BaseException as error:
            self._file.__exit__(type(error), error, None)
            raise
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes of the tensor whose turn it is."""
        self.write_at(self.take(len(data)), data)

    def take(self, n_bytes: int) -> int:
        """Returns the position, and moves it on: somebody will write so many bytes there."""
        position = self.position
        self.position += n_bytes
        return position

    def write_at(self, position: int, data: bytes | memoryview) -> None:
        """Puts bytes at a position that was taken; several threads may at the same time."""
        self._file.write_at(position, data)

    def end_tensor(self) -> None:
        """Goes on to where the next tensor begins; zeros are in between."""
        self.position = _padded(self.position)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def _check_room(self) -> None:
        path = self._file.path
        free = shutil.disk_usage(path.resolve().parent).free
        if free < self.size:
            raise EdgeqwenError(
                f"{path}: needs {self.size / 1e6:.1f} MB, but only {free / 1e6:.1f} MB are free in "
                f"{path.resolve().parent}; make room or choose another folder"
            )


def _header(metadata: Mapping[str, MetadataValue], tensors: Sequence[PlannedTensor]) -> bytes:
    out = bytearray(b"GGUF")
    out += struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))
    out += encode_metadata(metadata)
    offset = 0
    for tensor in tensors:
        # GGUF names the fastest dimension first, numpy last.
        sizes = tensor.shape[::-1]
        out += encode_string(tensor.name)
        out += struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, tensor.type, offset)
        offset += _padded(tensor.n_bytes)
    return bytes(out) + bytes(-len(out) % _ALIGNMENT)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
