"""The arrays in GGUF metadata: sequences over the file's bytes that make elements when asked.

A vocabulary of 150,000 tokens opens in milliseconds this way and takes little more memory than in
the file. Both kinds copy their bytes, so they outlive the file's mapping.
"""

import mmap
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import FileFormatError

T = TypeVar("T")

_LENGTH = struct.Struct("<Q")
_WINDOW = 1 << 16  # bytes that are searched for short strings at once
_FEW = 64  # fewer finds than this in a window aren't worth the search


class MetadataArray(Sequence[T], Generic[T]):
    """A read-only sequence that compares equal to a list of the same elements."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def tolist(self) -> list[T]:
        """Returns all elements as Python objects."""
        return list(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MetadataArray | list | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        ends = "..." if len(self) > 3 else ""
        return f"{type(self).__name__}({len(self)}: {self[:3]!r}{ends})"


class StringArray(MetadataArray[str]):
    """Strings that lie in one block of bytes; ``starts`` holds where each begins.

    Eight bytes stand before every string, and ``starts`` has one more entry, for the string that
    would come next. Everything was checked before: bounds and UTF-8.
    """

    __slots__ = ("_data", "_starts")

    def __init__(self, data: bytes, starts: npt.NDArray[np.uint64]) -> None:
        self._data = data
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self._data[int(self._starts[i]) : int(self._starts[i + 1]) - 8].decode()

    def __iter__(self) -> Iterator[str]:
        data = self._data
        starts = self._starts.data
        for i in range(len(self)):
            yield data[starts[i] : starts[i + 1] - 8].decode()


class NumberArray(MetadataArray[Any]):
    """Numbers or truth values; ``array`` is the read-only numpy array that holds them."""

    __slots__ = ("array",)

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.array[index].tolist()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array.data)

    def tolist(self) -> list[Any]:
        elements: list[Any] = self.array.tolist()
        return elements


def read_strings(
    data: mmap.mmap | bytes, position: int, stop: int, count: int, place: str
) -> tuple[StringArray, int]:
    """Reads strings, each behind its length, and returns them with the position after them.

    No string may run past ``stop``. Bounds and UTF-8 of every string are checked. ``place`` names
    the file and the key in the FileFormatError that is raised for a bad string.
    """
    starts = np.empty(count + 1, np.uint64)
    end = _find_strings(data, position, stop, starts, place)
    block = bytearray(data[position:end])
    # The lengths become zeros, so that one pass over the block checks every string by itself.
    view = np.frombuffer(block, np.uint8)
    for i in range(1, 9):
        view[starts[:-1] - np.uint64(i)] = 0
    text = bytes(block)
    try:
        text.decode()
    except UnicodeDecodeError as error:
        index = int(np.searchsorted(starts, error.start, side="right")) - 1
        raise FileFormatError(f"{place}[{index}] isn't valid UTF-8; the file is damaged") from None
    return StringArray(text, starts), end


def _find_strings(
    data: mmap.mmap | bytes, position: int, stop: int, starts: npt.NDArray[np.uint64], place: str
) -> int:
    """Fills in where each string begins, from ``position`` on; returns where the last one ends."""
    count, found, here, patience = len(starts) - 1, 0, position, _FEW
    while found < count and here <= stop - 8:
        offsets, here = _short_strings(data, here, stop, count - found)
        starts[found : found + len(offsets)] = offsets - position
        found += len(offsets)
        if len(offsets) >= _FEW:
            patience = _FEW
            continue
        # The next strings one by one, and more of them each time that the search was in vain.
        patience = min(2 * patience, _WINDOW)
        pause = min(found + patience, count)
        while found < pause and here <= stop - 8:
            (length,) = _LENGTH.unpack_from(data, here)
            starts[found] = here + 8 - position
            here += 8 + length
            found += 1
    if found < count or here > stop:
        index = found - 1 if here > stop else found
        raise FileFormatError(
            f"{place}[{index}] runs past byte {stop}, where the strings must have ended; "
            "the file is truncated or damaged, download or convert it again"
        )
    starts[count] = here + 8 - position
    return here


def _short_strings(
    data: mmap.mmap | bytes, here: int, stop: int, limit: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Finds a run of strings below 256 bytes in one go: where they begin and where they end.

    A short length is a byte and seven zeros, which text hardly ever holds; what only looks like
    one breaks the chain of lengths, and the run ends there.
    """
    window = np.frombuffer(data, np.uint8, min(_WINDOW, stop - here), here)
    zero = window == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    seven = four[:-3] & four[3:]
    at = np.flatnonzero(seven[1:])
    if not len(at) or at[0]:
        return np.empty(0, np.int64), here
    after = at + 8 + window[at]
    chained = after[:-1] == at[1:]
    n_found = min(limit, len(at) if chained.all() else int(np.argmin(chained)) + 1)
    return at[:n_found] + here + 8, here + int(after[n_found - 1])
