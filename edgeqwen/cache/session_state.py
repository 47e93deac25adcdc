"""How a session file begins; and its newest commit that can be trusted, read and mapped."""

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeqwen.cache.disk import BINARY, allocate, boot_identity, refusals, write
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
from edgeqwen.errors import SessionError


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


def open_session(path: Path, flags: int) -> int:
    """Opens a session file; returns its handle. Raises SessionError and DiskError."""
    try:
        # Before opening it: opening a pipe would wait for a writer.
        if not path.is_file():
            what = "is no regular file, expected a session" if exists(path) else "no such session"
            raise SessionError(f"{path}: {what}")
    except OSError as error:
        raise _unreachable(path, error) from error
    if flags == os.O_RDONLY:
        try:
            return os.open(path, flags | BINARY)
        except OSError as error:
            raise SessionError(f"{path}: can't be read: {error.strerror or error}") from error
    with refusals(path):
        return os.open(path, flags | BINARY)


def real_path(path: Path) -> Path:
    """Returns a file's only name: absolute and without links, so that all lock the same file."""
    return Path(os.path.realpath(path))


def exists(path: Path) -> bool:
    """Whether there is a file of that name. Raises SessionError where that can't be told."""
    try:
        return path.exists()
    except OSError as error:
        raise _unreachable(path, error) from error


def _unreachable(path: Path, error: OSError) -> SessionError:
    if isinstance(error, PermissionError):
        return SessionError(f"{path}: permission denied; make its folder readable")
    return SessionError(f"{path}: can't be read: {error.strerror or error}")


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


def read_state(handle: int, path: Path, identity: Identity, access: int) -> SessionState:
    """Maps what the newest whole commit names, if all of that is there.

    Raises SessionError, telling what is wrong with each record.
    """
    problems: list[str] = []
    kv_bytes = identity.layout.segment_bytes
    segment_units = units(KV_OFFSET + kv_bytes)
    for commit in read_commits(handle):
        n_units = os.fstat(handle).st_size // UNIT_BYTES
        problem = commit.problem(segment_units, n_units)
        if problem is None:
            try:
                segments = [
                    MappedSegment(handle, Extent(first, segment_units), kv_bytes, access)
                    for first in commit.segments
                ]
            except (OSError, ValueError, OverflowError) as error:  # no memory, or cut meanwhile
                raise SessionError(f"{path}: can't be mapped into memory: {error}") from error
            state = SessionState(commit, segments, token_ids(segments, commit.n_tokens))
            if _are_sound(state, identity.vocab_size):
                return state
            state.close()
            problem = f"the checksum of its {commit.n_tokens} tokens is wrong"
        if problem not in problems:
            problems.append(problem)
    raise SessionError(
        f"{path}: is damaged: {'; '.join(problems) or 'it has no commit record'}; restore it from "
        "a copy, or have what is left of the conversation read again (rebuild, --rebuild)"
    )


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

    Its transcript; the tokens, none where they can't be trusted; and the number of edits. Raises
    SessionError where no transcript is left.
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
            try:
                identity = read_identity(handle, path)
                state = read_state(handle, path, identity, mmap.ACCESS_READ)
                tokens = state.tokens
                state.close()
            except SessionError:
                pass
            return transcript, tokens, commit.edits
    finally:
        os.close(handle)
    raise SessionError(f"{path}: no messages are left in it; begin a new session")


def token_ids(segments: Sequence[MappedSegment], n_tokens: int) -> list[int]:
    """Returns the first ids that segments hold."""
    if not segments:
        return []
    ids: list[int] = np.concatenate([segment.tokens for segment in segments])[:n_tokens].tolist()
    return ids


def tokens_crc(tokens: Sequence[int], before: int = 0) -> int:
    """Returns the CRC-32 of ids as int32, behind others whose CRC-32 is ``before``."""
    return zlib.crc32(struct.pack(f"<{len(tokens)}i", *tokens), before)


def _are_sound(state: SessionState, vocab_size: int) -> bool:
    tokens = state.tokens
    in_vocabulary = not tokens or (min(tokens) >= 0 and max(tokens) < vocab_size)
    return in_vocabulary and tokens_crc(tokens) == state.commit.tokens_crc


def _read(handle: int, n_bytes: int) -> bytes:
    parts = []
    while n_bytes > 0 and (part := os.read(handle, min(n_bytes, 1 << 20))):
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)
