"""Reads one safetensors file: mapped, and checked before any of it is used.

The format: the header's length as a little-endian uint64, the header (JSON: per tensor a dtype, a
shape and where its bytes begin and end), then the bytes of all tensors without gaps.
Source: the format's description in the safetensors project.
"""

import mmap
import os
import stat
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from edgeqwen.config_keys import printable, shown
from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.file_kinds import describe_file
from edgeqwen.ggml_types import GgmlType
from edgeqwen.mapped_file import release, unmap
from edgeqwen.quant.json_file import parse_json

MAX_HEADER_BYTES = 8 << 20  # that of a 72B model, in one file, takes 0.15
_MAX_DIMENSIONS = 8

FLOAT_DTYPES = {"F32": GgmlType.F32, "F16": GgmlType.F16, "BF16": GgmlType.BF16}
# Whole files are checked, so the size of what can't be converted matters, too.
_DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of the file; ``offset`` counts bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


class SafetensorsFile:
    """A mapped safetensors file; a context manager.

    Raises FileFormatError if the file is truncated, damaged or contradicts itself, and
    UnsupportedError if it holds a dtype that isn't known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = _map(path)
        try:
            self.tensors = self._read_header(len(self._map))
        except BaseException:
            unmap(self._map)
            raise
        self._bytes = np.frombuffer(self._map, np.uint8)

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the bytes of a tensor, a read-only view of the mapping."""
        tensor = self.tensors[name]
        return self._bytes[tensor.offset : tensor.offset + tensor.n_bytes]

    def release(self, name: str, start: int, stop: int) -> None:
        """Lets go of the memory that reading bytes [start, stop) of a tensor took.

        Reading them again is allowed, and loads them again.
        """
        offset = self.tensors[name].offset
        release(self._map, offset + start, offset + stop)

    def close(self) -> None:
        """Drops the mapping, which lives on as long as views from ``data`` do."""
        self._bytes = np.empty(0, np.uint8)
        unmap(self._map)

    def __enter__(self) -> "SafetensorsFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_header(self, size: int) -> dict[str, StoredTensor]:
        length = int.from_bytes(self._map[:8], "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            kind = describe_file(self._map[:32])
            hint = "truncated; download it again"
            if not kind.startswith("a safetensors"):
                hint = f"it is no safetensors file but {kind}"
            raise FileFormatError(
                f"{self.path}: the header would take {length} bytes, but the file has {size} and "
                f"headers are at most {MAX_HEADER_BYTES}: {hint}"
            )
        header = parse_json(self._map[8 : 8 + length], f"{self.path}: header")
        header.pop("__metadata__", None)
        start = 8 + length
        tensors = {name: self._tensor(name, entry, start) for name, entry in header.items()}
        self._check_layout(tensors, start, size)
        return tensors

    def _tensor(self, name: str, entry: Any, start: int) -> StoredTensor:
        where = f"{self.path}: {printable(name)}"
        if not isinstance(entry, dict):
            raise FileFormatError(f"{where}: described by {shown(entry)}, expected an object")
        dtype, shape, span = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not isinstance(dtype, str):
            raise FileFormatError(f"{where}: dtype is {shown(dtype)}, expected a string")
        if dtype not in _DTYPE_BYTES:
            raise UnsupportedError(f"{where}: dtype {shown(dtype)} isn't known to this version")
        if not _whole_numbers(shape) or len(shape) > _MAX_DIMENSIONS:
            raise FileFormatError(
                f"{where}: shape is {_shown(shape)}, expected up to {_MAX_DIMENSIONS} whole numbers"
            )
        if not _whole_numbers(span) or len(span) != 2 or span[0] > span[1]:
            raise FileFormatError(
                f"{where}: data_offsets is {_shown(span)}, expected where its bytes begin and end"
            )
        expected, found = prod(shape) * _DTYPE_BYTES[dtype], span[1] - span[0]
        if expected != found:
            raise FileFormatError(
                f"{where}: {dtype} of shape {_shown(shape)} takes {shown(expected)} bytes, but "
                f"data_offsets gives it {shown(found)}"
            )
        return StoredTensor(name, dtype, tuple(shape), start + span[0], found)

    def _check_layout(self, tensors: dict[str, StoredTensor], start: int, size: int) -> None:
        end = start
        for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.n_bytes)):
            where = f"{self.path}: {printable(tensor.name)}"
            if tensor.offset + tensor.n_bytes > size:
                raise FileFormatError(
                    f"{where}: ends at byte {shown(tensor.offset + tensor.n_bytes)}, but the file "
                    f"has {size}: truncated; download it again"
                )
            if tensor.offset != end:
                fault = "overlaps it" if tensor.offset < end else "leaves a gap"
                raise FileFormatError(
                    f"{where}: starts at byte {tensor.offset}, but what stands before it ends at "
                    f"{end}: it {fault}"
                )
            end += tensor.n_bytes
        if end != size:
            raise FileFormatError(
                f"{self.path}: the tensors end at byte {end}, but the file has {size}"
            )


def _map(path: Path) -> mmap.mmap:
    try:
        status = os.stat(path)
        # Before opening it: opening a pipe would wait for a writer.
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{path}: is no regular file, expected a safetensors file")
        if status.st_size < 8:
            raise FileFormatError(
                f"{path}: {status.st_size} bytes is too short for a safetensors file; "
                "download it again"
            )
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileFormatError(f"{path}: can't be read ({reason})") from None


def _shown(value: object) -> str:
    if isinstance(value, list) and len(value) <= _MAX_DIMENSIONS:
        return f"[{', '.join(map(shown, value))}]"
    return shown(value)


def _whole_numbers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)
