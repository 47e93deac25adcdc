"""The header of a GGUF file: magic, version, counts and metadata, each checked before it is used.

Source: the GGUF specification of the GGML project, versions 2 and 3, little-endian.
"""

import mmap
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.file_kinds import describe_file
from edgeqwen.gguf_arrays import NumberArray, StringArray, read_strings

# No model comes near these; they bound the time and the memory that a lying file can take.
MAX_HEADER = 1 << 28
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_STRINGS = 1 << 22

_VERSIONS = (2, 3)
_MAX_KEY_LENGTH = 256  # the specification allows more, but messages name keys in full
# The least that a key with its value, and a tensor's entry, can take.
_MIN_KEY_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8

_BOOL, _FLOAT32, _STRING, _ARRAY = 7, 6, 8, 9
_NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("u1"),
    1: np.dtype("i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    _FLOAT32: np.dtype("<f4"),
    _BOOL: np.dtype("u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class HeaderReader:
    """Walks through a GGUF file from its start; no read goes past the end of the file."""

    def __init__(self, data: mmap.mmap | bytes, source: str) -> None:
        self._data = data
        self.size = len(data)
        self._stop = min(self.size, MAX_HEADER)
        self.source = source
        self.position = 0

    def peek(self, n_bytes: int) -> bytes:
        """Returns the bytes ahead, fewer where the file ends, without taking them."""
        return self._data[self.position : self.position + n_bytes]

    def u32(self, what: str) -> int:
        """Reads a 32-bit count or type; ``what`` names it in messages."""
        self._need(4, what)
        self.position += 4
        return int(_U32.unpack_from(self._data, self.position - 4)[0])

    def u64(self, what: str) -> int:
        """Reads a 64-bit count, length or offset."""
        self._need(8, what)
        self.position += 8
        return int(_U64.unpack_from(self._data, self.position - 8)[0])

    def string(self, what: str, limit: int = MAX_HEADER) -> str:
        """Reads a string of at most ``limit`` bytes behind its length."""
        length = self.u64(f"the length of {what}")
        if length > limit:
            raise self.damaged(f"{what} claims {length} bytes, expected at most {limit}")
        try:
            return self._take(length, what).decode()
        except UnicodeDecodeError:
            raise self.damaged(f"{what} isn't valid UTF-8") from None

    def name(self, what: str, limit: int) -> str:
        """Reads a key or a tensor's name: not empty, without control characters."""
        name = self.string(what, limit)
        if not name.isprintable() or not name:
            raise self.damaged(f"{what} is {name[:60]!r}, expected a readable name")
        return name

    def value(self, kind: int, key: str) -> Any:
        """Reads the value of a key: a Python scalar, a str or a MetadataArray."""
        if kind == _STRING:
            return self.string(key)
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _NUMBERS:
            raise self.damaged(f"{key} has the value type {kind}, expected 0 to 12")
        (number,) = self._numbers(kind, 1, key)
        # 0.7 shall read as 0.7, not as the 0.699999988 that float32 makes of it: the shortest
        # number that rounds to the same float32.
        return float(str(number)) if kind == _FLOAT32 else number.item()

    def _array(self, key: str) -> NumberArray | StringArray:
        kind, count = self.u32(f"the type of {key}"), self.u64(f"the length of {key}")
        if kind == _ARRAY:
            raise UnsupportedError(
                f"{self.source}: {key} is an array of arrays, which no known model holds"
            )
        if kind == _STRING:
            self.check_count(count, MAX_STRINGS, 8, f"strings in {key}")
            place = f"{self.source}: {key}"
            strings, self.position = read_strings(
                self._data, self.position, self._stop, count, place
            )
            return strings
        if kind not in _NUMBERS:
            raise self.damaged(f"{key} is an array of the value type {kind}, expected 0 to 12")
        self.check_count(count, MAX_HEADER, _NUMBERS[kind].itemsize, f"numbers in {key}")
        return NumberArray(self._numbers(kind, count, key))

    def _numbers(self, kind: int, count: int, key: str) -> npt.NDArray[Any]:
        numbers = np.frombuffer(self._take(count * _NUMBERS[kind].itemsize, key), _NUMBERS[kind])
        if kind == _BOOL:
            if count and numbers.max() > 1:
                raise self.damaged(f"{key} is {numbers.max()}, expected 0 (false) or 1 (true)")
            return numbers.view(np.bool_)
        return numbers

    def check_count(self, count: int, limit: int, least: int, what: str) -> None:
        """Refuses a count of things that can't be, given the least bytes that each takes."""
        if count > limit:
            raise self.damaged(f"claims {count} {what}, expected at most {limit}")
        if count * least > self.size - self.position:
            raise self.damaged(
                f"claims {count} {what}, but only {self.size - self.position} bytes follow"
            )

    def damaged(self, problem: str) -> FileFormatError:
        """Returns the error for a header that can't be right."""
        return FileFormatError(
            f"{self.source}: {problem}; the file is truncated or damaged, "
            "download or convert it again"
        )

    def _take(self, n_bytes: int, what: str) -> bytes:
        self._need(n_bytes, what)
        self.position += n_bytes
        # A slice of the mapping is a copy: it outlives the mapping.
        return self._data[self.position - n_bytes : self.position]

    def _need(self, n_bytes: int, what: str) -> None:
        end = self.position + n_bytes
        if end <= self._stop:
            return
        if end > self.size:
            raise self.damaged(
                f"{what} at byte {self.position} takes {n_bytes} bytes, "
                f"but the file ends at byte {self.size}"
            )
        raise self.damaged(f"{what} reaches byte {end}, but no header is over {MAX_HEADER} bytes")


def read_preamble(reader: HeaderReader) -> tuple[int, int, int]:
    """Reads the magic and returns the version and the counts of tensors and of keys."""
    head = reader.peek(64)
    if len(head) < 24:
        raise reader.damaged(f"holds {len(head)} bytes, expected at least 24")
    if head[:4] != b"GGUF":
        raise FileFormatError(f"{reader.source}: not a GGUF file, but {describe_file(head)}")
    reader.position = 4
    version = reader.u32("the version")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        if swapped <= _VERSIONS[-1] and version:
            raise UnsupportedError(
                f"{reader.source}: this GGUF file is big-endian; convert the original checkpoint "
                "to a little-endian one"
            )
        raise UnsupportedError(
            f"{reader.source}: GGUF version {version}, expected 2 or 3; "
            "convert the original checkpoint again"
        )
    n_tensors, n_keys = reader.u64("the number of tensors"), reader.u64("the number of keys")
    reader.check_count(n_tensors, MAX_TENSORS, _MIN_TENSOR_BYTES, "tensors")
    reader.check_count(n_keys, MAX_KEYS, _MIN_KEY_BYTES, "metadata keys")
    return version, n_tensors, n_keys


def read_metadata(reader: HeaderReader, n_keys: int) -> dict[str, Any]:
    """Reads the metadata: Python scalars, str and arrays by key, in the order of the file."""
    metadata: dict[str, Any] = {}
    for i in range(n_keys):
        key = reader.name(f"metadata key {i}", _MAX_KEY_LENGTH)
        if key in metadata:
            raise reader.damaged(f"the key {key} stands in the metadata twice")
        metadata[key] = reader.value(reader.u32(f"the type of {key}"), key)
    return metadata
