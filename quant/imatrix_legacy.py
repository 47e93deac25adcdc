"""Importance matrices in the binary format (.dat) that llama.cpp wrote before it took GGUF.

All numbers are little-endian int32 and float32: the number of entries; for each the length of its
name, the name, a number of windows, the number of values, and the values; then, in all but the
oldest files, the number of windows read, and the name of the text behind its length. A value is
the mean square of a column times the entry's number of windows.
"""

import mmap
import struct
from pathlib import Path

import numpy as np

from edgeqwen.errors import FileFormatError
from edgeqwen.file_kinds import describe_file
from edgeqwen.mapped_file import map_file, unmap
from edgeqwen.quant.imatrix_parts import Entry, ImatrixParts, checked_entry

# The file doesn't tell how many tokens a window had: the usual number, so that these sums can be
# added to those of others. The mean squares don't depend on it.
CHUNK_SIZE = 512
_MAX_ENTRIES = 1 << 16
_MAX_NAME = 55  # so that a GGUF file can hold it with a suffix
_MAX_WINDOWS = (1 << 31) - 1
_I32 = struct.Struct("<i")


def read_legacy(path: Path) -> ImatrixParts:
    """Reads a .dat file. Raises FileFormatError for one that is damaged, or something else."""
    mapping = map_file(path)
    try:
        return _Reader(mapping, path).file()
    finally:
        unmap(mapping)


class _Reader:
    """Walks through a file from its start; no read goes past its end."""

    def __init__(self, data: mmap.mmap | bytes, path: Path) -> None:
        self._data, self._path = data, path
        self._position = 0

    def file(self) -> ImatrixParts:
        head = self._data[:64]
        n_entries = _I32.unpack_from(head)[0] if len(head) >= 4 else 0
        # The least that an entry takes: three numbers, a name of one letter, a value.
        if not 1 <= n_entries <= min(_MAX_ENTRIES, len(self._data) // 17):
            raise FileFormatError(
                f"{self._path}: is {describe_file(head)}, expected an importance matrix; edgeqwen "
                "imatrix makes one from a model and a text"
            )
        self._position = 4
        entries: dict[str, Entry] = {}
        for i in range(n_entries):
            name = self._name(f"the name of entry {i}")
            if name in entries:
                raise self._damaged(f"two entries are named {name}")
            entries[name] = self._entry(name)
        chunk_count, datasets = self._end()
        return ImatrixParts(entries, chunk_count, CHUNK_SIZE, datasets)

    def _entry(self, name: str) -> Entry:
        n_windows = self._number(f"the windows of {name}", 0, _MAX_WINDOWS)
        n_values = self._number(f"the columns of {name}", 1, len(self._data) // 4)
        values = np.frombuffer(self._take(4 * n_values, f"the values of {name}"), "<f4")
        with np.errstate(over="ignore", invalid="ignore"):
            sums = values.astype(np.float32) * np.float32(CHUNK_SIZE)
        return checked_entry(sums, n_windows * CHUNK_SIZE, f"{self._path}: {name}")

    def _end(self) -> tuple[int, tuple[str, ...]]:
        """Reads what the oldest files don't have: the number of windows, and the text's name."""
        if self._position == len(self._data):
            return 0, ()
        chunk_count = self._number("the number of windows", 0, _MAX_WINDOWS)
        if self._position == len(self._data):
            return chunk_count, ()
        length = self._number("the length of the text's name", 0, len(self._data))
        dataset = self._take(length, "the text's name").decode(errors="replace")
        if self._position != len(self._data):
            raise self._damaged(f"goes on after its end at byte {self._position}")
        return chunk_count, (dataset,) if dataset else ()

    def _name(self, what: str) -> str:
        length = self._number(f"the length of {what}", 1, _MAX_NAME)
        try:
            name = self._take(length, what).decode()
        except UnicodeDecodeError:
            raise self._damaged(f"{what} isn't valid UTF-8") from None
        if not name.isprintable():
            raise self._damaged(f"{what} is {name[:60]!r}, expected a readable name")
        return name

    def _number(self, what: str, least: int, most: int) -> int:
        number: int = _I32.unpack(self._take(4, what))[0]
        if not least <= number <= most:
            raise self._damaged(f"{what} is {number}, expected {least} to {most}")
        return number

    def _take(self, n_bytes: int, what: str) -> bytes:
        end = self._position + n_bytes
        if end > len(self._data):
            raise self._damaged(
                f"{what} would take {n_bytes} bytes from byte {self._position} on, but the file "
                f"ends at byte {len(self._data)}"
            )
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def _damaged(self, problem: str) -> FileFormatError:
        return FileFormatError(
            f"{self._path}: {problem}; the importance matrix is truncated or damaged, collect or "
            "download it again"
        )
