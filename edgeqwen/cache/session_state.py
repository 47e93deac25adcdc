"""How a session file begins; and its newest commit that can be trusted, read and mapped."""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeqwen.cache.disk import allocate, boot_identity, refusals, write
from edgeqwen.cache.layout import n_segments
from edgeqwen.cache.mapped_segment import MappedSegment
from edgeqwen.cache.session_format import (
    FIRST_UNIT,
    IDENTITY_BYTES,
    KV_OFFSET,
    MAX_TRANSCRIPT_BYTES,
    SLOTS,
    UNIT_BYTES,
    Commit,
    Extent,
    Identity,
    units,
)
from edgeqwen.cache.session_paths import open_session
from edgeqwen.errors import SessionError
from edgeqwen.kernels.attention_types import SEGMENT


@dataclass(slots=True)
class SessionState:
    """A commit with the segments it names, mapped, and the tokens that have keys and values."""

    commit: Commit
    segments: list[MappedSegment]
    tokens: list[int]

    def close(self) -> None:
        """Unmaps the segments."""
        for segment in self.segments:
            segment.close()
        self.segments.clear()


def write_head(handle: int, path: Path, identity: Identity, commit: Commit) -> None:
    """Writes the identity, and a record into both slots. Raises DiskError."""
    allocate(handle, 0, FIRST_UNIT * UNIT_BYTES, path)
    with refusals(path):
        write(handle, 0, identity.encode())
        for slot in SLOTS:
            write(handle, slot * UNIT_BYTES, commit.encode())


def read_identity(handle: int, path: Path) -> Identity:
    """Reads who a session belongs to. Raises SessionError for a file that is no session."""
    os.lseek(handle, 0, os.SEEK_SET)
    identity = Identity.decode(_read(handle, IDENTITY_BYTES), str(path))
    size = os.fstat(handle).st_size
    if size < FIRST_UNIT * UNIT_BYTES:
        raise SessionError(
            f"{path}: is cut short: it has {size} bytes, expected {FIRST_UNIT * UNIT_BYTES} or "
            "more; restore it from a copy, or begin a new session"
        )
    return identity


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[int, Identity]]:
    """Opens a session for reading: its handle and identity. Raises SessionError."""
    handle = open_session(path, os.O_RDONLY)
    try:
        yield handle, read_identity(handle, path)
    finally:
        os.close(handle)


def read_commits(handle: int) -> list[Commit]:
    """Returns the whole records of both slots, the newest first.

    Where the system was started anew since, they name only what was on the disk by then.
    """
    found = []
    for slot in SLOTS:
        os.lseek(handle, slot * UNIT_BYTES, os.SEEK_SET)
        commit = Commit.decode(_read(handle, UNIT_BYTES))
        if commit is not None:
            found.append(commit if is_of_this_boot(commit) else commit.only_stored())
    return sorted(found, key=lambda commit: -commit.number)


def is_of_this_boot(commit: Commit) -> bool:
    """Whether the system has kept what was written before a record, also what isn't on the disk."""
    return commit.boot == boot_identity() != bytes(16)


def read_tokens(handle: int, path: Path, identity: Identity) -> tuple[Commit, list[int]]:
    """Returns the newest record that can be trusted, and its tokens.

    Raises SessionError, telling what is wrong with each record.
    """
    problems: list[str] = []
    segment_units = units(KV_OFFSET + identity.layout.segment_bytes)
    for commit in read_commits(handle):
        problem = commit.problem(segment_units, os.fstat(handle).st_size // UNIT_BYTES)
        if problem is None:
            tokens = _token_ids(handle, commit)
            in_vocabulary = not tokens or (min(tokens) >= 0 and max(tokens) < identity.vocab_size)
            if in_vocabulary and tokens_crc(tokens) == commit.tokens_crc:
                return commit, tokens
            problem = f"the checksum of its {commit.n_tokens} tokens is wrong"
        if problem not in problems:
            problems.append(problem)
    raise SessionError(
        f"{path}: is damaged: {'; '.join(problems) or 'it has no commit record'}; restore it from "
        "a copy, or have what is left of the conversation read again (rebuild, --rebuild)"
    )


def read_state(handle: int, path: Path, identity: Identity, access: int) -> SessionState:
    """Maps what the newest record names that can be trusted. Raises SessionError."""
    commit, tokens = read_tokens(handle, path, identity)
    kv_bytes = identity.layout.segment_bytes
    segment_units = units(KV_OFFSET + kv_bytes)
    try:
        segments = [
            MappedSegment(handle, Extent(first, segment_units), kv_bytes, access)
            for first in commit.segments
        ]
    except (OSError, ValueError, OverflowError) as error:  # no memory, or cut meanwhile
        raise SessionError(f"{path}: can't be mapped into memory: {error}") from error
    return SessionState(commit, segments, tokens)


def read_transcript(handle: int, commit: Commit, path: Path) -> bytes:
    """Returns a record's transcript; raises SessionError where it is damaged."""
    if commit.transcript is None:
        return b""
    os.lseek(handle, commit.transcript.offset, os.SEEK_SET)
    data = _read(handle, commit.transcript_bytes)
    if zlib.crc32(data) != commit.transcript_crc:
        raise SessionError(
            f"{path}: is damaged: the checksum of its messages is {zlib.crc32(data):08x}, expected "
            f"{commit.transcript_crc:08x}; restore it from a copy"
        )
    return data


def salvage(path: Path) -> tuple[bytes, list[int], int]:
    """Returns what is left of a conversation in a damaged or foreign session.

    Its transcript, empty where nothing was said; the tokens, none where they can't be trusted; and
    the number of edits. Raises SessionError where nothing can be told.
    """
    handle = open_session(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        commits = read_commits(handle)
        for commit in [*commits, *(commit.only_stored() for commit in commits)]:
            extent = commit.transcript
            if extent is None or commit.transcript_bytes > min(
                MAX_TRANSCRIPT_BYTES, size - extent.offset
            ):
                continue
            try:
                transcript = read_transcript(handle, commit, path)
            except SessionError:
                continue
            tokens: list[int] = []
            with contextlib.suppress(SessionError):
                _, tokens = read_tokens(handle, path, read_identity(handle, path))
            return transcript, tokens, commit.edits
        if commits and all(commit.transcript is None for commit in commits):
            with contextlib.suppress(SessionError):
                commit, tokens = read_tokens(handle, path, read_identity(handle, path))
                return b"", tokens, commit.edits
    finally:
        os.close(handle)
    raise SessionError(f"{path}: no messages are left in it; begin a new session")


def _token_ids(handle: int, commit: Commit) -> list[int]:
    parts = []
    for unit in commit.segments[: n_segments(commit.n_tokens)]:
        os.lseek(handle, unit * UNIT_BYTES, os.SEEK_SET)
        parts.append(_read(handle, 4 * SEGMENT))
    ids: list[int] = np.frombuffer(b"".join(parts), "<i4")[: commit.n_tokens].tolist()
    return ids


def tokens_crc(tokens: Sequence[int], before: int = 0) -> int:
    """Returns the CRC-32 of ids as int32, behind others whose CRC-32 is ``before``."""
    return zlib.crc32(struct.pack(f"<{len(tokens)}i", *tokens), before)


def _read(handle: int, n_bytes: int) -> bytes:
    parts = []
    while n_bytes > 0 and (part := os.read(handle, min(n_bytes, 1 << 20))):
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)
