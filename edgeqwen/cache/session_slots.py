"""The two slots of a session file, in which commit records take turns."""

import mmap
import zlib
from pathlib import Path

from edgeqwen.cache.disk import refusals, sync
from edgeqwen.cache.session_format import (
    FIRST_UNIT,
    NUMBER_PLACE,
    SLOTS,
    TOKENS_CRC_PLACE,
    TOKENS_PLACE,
    UNIT_BYTES,
    Commit,
)

PAGE = 4096
"""Bytes that a disk writes as a whole."""


class CommitSlots:
    """Both slots of a file, mapped; ``commit`` is the newest record.

    A record is always written over the older one: whoever kills the process leaves the newer.
    """

    def __init__(self, handle: int, path: Path, commit: Commit) -> None:
        self.commit = commit
        self._handle, self._path = handle, path
        self._mapping = mmap.mmap(handle, FIRST_UNIT * UNIT_BYTES)
        with memoryview(self._mapping) as head:
            self._slots = [_Slot(head[i * UNIT_BYTES : (i + 1) * UNIT_BYTES]) for i in SLOTS]

    def append(self, n_tokens: int, tokens_crc: int) -> None:
        """Commits more tokens in the same segments, after ``write``."""
        commit = self.commit
        commit.number += 1
        commit.n_tokens, commit.tokens_crc = n_tokens, tokens_crc
        self._slots[commit.number % 2].append(commit.number, n_tokens, tokens_crc)

    def write(self, commit: Commit, *, to_disk: bool = False) -> None:
        """Commits a record, and writes it again over the older; ``to_disk``: one after the other.

        Raises DiskError.
        """
        # What changes with every token is in a record's first page. Where others change, a power
        # failure could leave halves of records in both slots.
        is_long = len(commit.encode()) > PAGE
        to_disk = to_disk or (is_long and commit.segments != self.commit.segments)
        commit.number = self.commit.number
        self.commit = commit
        for _ in SLOTS:
            commit.number += 1
            self._slots[commit.number % 2].write(commit.encode())
            if to_disk:
                self._sync()

    def close(self) -> None:
        """Unmaps the slots. Idempotent."""
        for slot in self._slots:
            slot.close()
        self._mapping.close()

    def _sync(self) -> None:
        with refusals(self._path):
            self._mapping.flush()
            sync(self._handle)  # the other may hand them to the system or the drive only


class _Slot:
    """The memory of a slot."""

    def __init__(self, memory: memoryview) -> None:
        self._bytes, self._words, self._longs = memory, memory.cast("I"), memory.cast("Q")
        self._checked = memory[:0]  # what the checksum, which comes first, is of

    def write(self, record: bytes) -> None:
        self._bytes[: len(record)] = record
        self._checked = self._bytes[4 : len(record)]

    def append(self, number: int, n_tokens: int, tokens_crc: int) -> None:
        """Changes four numbers of the record that is there.

        It takes a tenth of the time: what is done for every token finds neither code nor data in
        the CPU's caches, for weights went through them.
        """
        self._longs[NUMBER_PLACE] = number
        self._longs[TOKENS_PLACE] = n_tokens
        self._words[TOKENS_CRC_PLACE] = tokens_crc
        self._words[0] = zlib.crc32(self._checked)

    def close(self) -> None:
        for view in (self._checked, self._words, self._longs, self._bytes):
            view.release()
