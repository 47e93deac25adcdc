"""Copies of sessions: into memory or another file, beside whoever writes them."""

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from edgeqwen.cache.disk import allocate, refusals, write
from edgeqwen.cache.layout import n_segments
from edgeqwen.cache.session_format import (
    FIRST_UNIT,
    KV_OFFSET,
    UNIT_BYTES,
    Extent,
    Identity,
    units,
)
from edgeqwen.cache.session_state import (
    BINARY,
    SessionState,
    open_session,
    read_commits,
    read_identity,
    read_state,
    read_transcript,
)
from edgeqwen.cache.store import MemoryStore
from edgeqwen.errors import SessionError

_ATTEMPTS = 3


@contextlib.contextmanager
def reading(path: Path) -> Iterator[tuple[int, Identity, SessionState]]:
    """Opens a session for reading only: its handle, identity and newest state, mapped.

    Whoever writes it may go on; see ``is_still``. Raises SessionError.
    """
    handle = open_session(path, os.O_RDONLY)
    try:
        identity = read_identity(handle, path)
        state = read_state(handle, path, identity, mmap.ACCESS_READ)
        try:
            yield handle, identity, state
        finally:
            state.close()
    finally:
        os.close(handle)


def is_still(handle: int, state: SessionState) -> bool:
    """Whether the state's tokens are all still in the file, so that what was read is theirs."""
    commits = read_commits(handle)
    return bool(commits) and commits[0].edits == state.commit.edits


def copy_to_memory(path: Path, expected: Identity) -> tuple[MemoryStore, bytes, int]:
    """Returns a session in memory, its transcript, and the number of edits.

    Raises SessionError for another model's session, or one that changes all the time.
    """
    for _ in range(_ATTEMPTS):
        with reading(path) as (handle, identity, state):
            if why := expected.difference(identity):
                raise SessionError(f"{path}: can't be continued: {why}; load that model")
            layout = identity.layout
            store = MemoryStore(layout, state.tokens)
            for segment in state.segments[: n_segments(len(state.tokens))]:
                size = layout.segment_bytes
                store.new_segment().view(0, size)[:] = segment.view(0, size)
            transcript = read_transcript(handle, state.commit, path)
            if is_still(handle, state):
                return store, transcript, state.commit.edits
            store.close()
    raise _restless(path)


def copy_session(source: Path, target: Path) -> None:
    """Copies a session's file, without the gaps in it; where the system can, only on write.

    Raises SessionError, also where there is a file ``target``, and DiskError.
    """
    if target.exists():
        raise SessionError(f"{target}: is there already; name another file")
    aside = target.with_name(f".{target.name}.new")
    with reading(source):
        pass  # a clear error before anything is written
    with refusals(target):
        copy = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
    try:
        for _ in range(_ATTEMPTS):
            if _copied(source, copy, target):
                break
        else:
            raise _restless(source)
        with refusals(target):
            os.fsync(copy)
            os.replace(aside, target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        os.close(copy)


def _copied(source: Path, copy: int, target: Path) -> bool:
    """Copies all parts of a session; False if it was changed meanwhile."""
    with reading(source) as (handle, identity, state):
        segment_units = units(KV_OFFSET + identity.layout.segment_bytes)
        extents = [Extent(first, segment_units) for first in state.commit.segments]
        if state.commit.transcript is not None:
            extents.append(state.commit.transcript)
        # The records first: whatever is added later doesn't count.
        for extent in [Extent(0, FIRST_UNIT), *extents]:
            allocate(copy, extent.offset, extent.n_units * UNIT_BYTES, target)
            with refusals(target):
                copy_bytes(handle, copy, extent.offset, extent.offset, extent.n_units * UNIT_BYTES)
        return is_still(handle, state)


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


def _restless(path: Path) -> SessionError:
    return SessionError(
        f"{path}: is changed all the time by who has it open; try again later, or close it there"
    )
