"""Copies of sessions: into memory or another file, beside whoever writes them."""

import contextlib
import dataclasses
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from edgeqwen.cache.disk import allocate, refusals, replacement, write
from edgeqwen.cache.layout import CacheLayout, n_segments
from edgeqwen.cache.mapped_segment import MappedSegment
from edgeqwen.cache.session_format import (
    KV_OFFSET,
    UNIT_BYTES,
    Commit,
    Extent,
    Identity,
    units,
)
from edgeqwen.cache.session_lock import SessionLock
from edgeqwen.cache.session_paths import exists, real_path
from edgeqwen.cache.session_state import (
    SessionState,
    opened,
    read_commits,
    read_state,
    read_transcript,
    write_head,
)
from edgeqwen.cache.store import MemoryStore
from edgeqwen.errors import SessionError
from edgeqwen.kernels.attention_types import SEGMENT

ATTEMPTS = 3


@contextlib.contextmanager
def reading(path: Path) -> Iterator[tuple[int, Identity, SessionState]]:
    """Opens a session for reading only: its handle, identity and newest state, mapped.

    Whoever writes it may go on; see ``is_still``. Raises SessionError.
    """
    with opened(path) as (handle, identity):
        state = _read_state(handle, path, identity)
        try:
            yield handle, identity, state
        finally:
            state.close()


def _read_state(handle: int, path: Path, identity: Identity) -> SessionState:
    """Reads the state of a session that may be written to at the same time."""
    for _ in range(ATTEMPTS):
        before = read_commits(handle)
        try:
            return read_state(handle, path, identity, mmap.ACCESS_READ)
        except SessionError:
            if before and before == read_commits(handle):
                raise
    if before:
        raise restless(path)
    return read_state(handle, path, identity, mmap.ACCESS_READ)


def is_still(handle: int, state: SessionState) -> bool:
    """Whether what the state names is all still in the file, so that what was read is its own."""

    def named(commit: Commit) -> tuple[int, ...]:
        place = commit.transcript_unit, commit.transcript_bytes, commit.transcript_crc
        return commit.edits, *place

    commits = read_commits(handle)
    return bool(commits) and named(commits[0]) == named(state.commit)


def copy_to_memory(path: Path, expected: Identity) -> tuple[MemoryStore, bytes, int]:
    """Returns a session in memory, its transcript, and the number of edits.

    Raises SessionError for another model's session, or one that changes all the time.
    """
    for _ in range(ATTEMPTS):
        with reading(path) as (handle, identity, state):
            if why := expected.difference(identity):
                raise SessionError(f"{path}: can't be continued: {why}")
            layout = identity.layout
            store = MemoryStore(layout, state.tokens)
            store.first_moved = state.commit.first_moved
            transcript = _transcript(handle, state, path)
            if transcript is None:
                continue
            for segment in state.segments[: n_segments(len(state.tokens))]:
                size = layout.segment_bytes
                store.new_segment().view(0, size)[:] = segment.view(0, size)
            if is_still(handle, state):
                return store, transcript, state.commit.edits
            store.close()
    raise restless(path)


def copy_session(source: Path, target: Path) -> None:
    """Copies a session's file, without the gaps in it; where the system can, only on write.

    Raises SessionError, also where there is a file ``target``, SessionLockedError and DiskError.
    """
    target = real_path(target)
    with reading(source):
        pass  # a clear error before anything is written
    lock = SessionLock.acquire(target)
    try:
        if exists(target):
            raise SessionError(f"{target}: is there already; name another file")
        for _ in range(ATTEMPTS):
            with contextlib.suppress(_Changed), replacement(target) as copy:
                _copy(source, copy, target)
                return
        raise restless(source)
    finally:
        lock.release()


class _Changed(Exception):  # noqa: N818
    """A session was changed while it was copied."""


def _copy(source: Path, copy: int, target: Path) -> None:
    """Copies what a session names, and records that name it. Raises _Changed."""
    with reading(source) as (handle, identity, state):
        # What belongs to no token, or to no message, is what somebody took away.
        used = state.commit.segments[: n_segments(len(state.tokens))]
        commit = dataclasses.replace(state.commit, segments=used)
        segment_units = units(KV_OFFSET + identity.layout.segment_bytes)
        parts = [(Extent(first, segment_units), segment_units * UNIT_BYTES) for first in used]
        if commit.transcript is not None:
            parts.append((commit.transcript, commit.transcript_bytes))
        # Not the source's records: they may name by now what isn't copied. All will be on the disk.
        write_head(copy, target, identity, commit.all_stored())
        for extent, n_bytes in parts:
            allocate(copy, extent.offset, extent.n_units * UNIT_BYTES, target)
            with refusals(target):
                copy_bytes(handle, copy, extent.offset, extent.offset, n_bytes)
        with refusals(target):
            _seal(copy, state, identity.layout)
        if not is_still(handle, state):
            raise _Changed


def _seal(copy: int, state: SessionState, layout: CacheLayout) -> None:
    """Adds the checksums that a copy hasn't yet, unless one that it has is wrong.

    Of the copy's own bytes: the source's may be others by now. What lies behind the last token is
    cleared.
    """
    for i in range(n_segments(len(state.tokens))):
        n = min(SEGMENT, len(state.tokens) - i * SEGMENT)
        extent, size = state.segments[i].extent, layout.segment_bytes
        segment = MappedSegment(copy, extent, size, mmap.ACCESS_WRITE)
        covered, expected = segment.seal
        kv = segment.view(0, size)
        if covered != n and (not 0 < covered < n or layout.checksum(kv, covered) == expected):
            segment.seal = n, layout.checksum(kv, n)
        if n < SEGMENT:
            segment.tokens[n:] = 0
            layout.clear(kv, n)
        segment.flush()
        del kv
        segment.close()


def _transcript(handle: int, state: SessionState, path: Path) -> bytes | None:
    """Returns a state's transcript, or None if another has taken its place meanwhile."""
    try:
        return read_transcript(handle, state.commit, path)
    except SessionError:
        if is_still(handle, state):
            raise
        return None


def copy_bytes(source: int, target: int, start: int, to: int, n_bytes: int) -> None:
    """Copies bytes between files, as the system does it best. Raises OSError."""
    while n_bytes > 0 and hasattr(os, "copy_file_range"):
        try:
            n = os.copy_file_range(source, target, n_bytes, start, to)
        except OSError:
            break  # between file systems of old systems, for one
        if n == 0:
            break
        start, to, n_bytes = start + n, to + n, n_bytes - n
    while n_bytes > 0:
        os.lseek(source, start, os.SEEK_SET)
        part = os.read(source, min(n_bytes, 1 << 20))
        if not part:
            raise OSError(f"the file ends {n_bytes} bytes too early")
        write(target, to, part)
        start, to, n_bytes = start + len(part), to + len(part), n_bytes - len(part)


def restless(path: Path) -> SessionError:
    """Returns the error of a session that is never the same for as long as reading it takes."""
    return SessionError(
        f"{path}: is changed all the time by who has it open; try again later, or close it there"
    )
