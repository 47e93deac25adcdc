"""SessionFile: a sequence's tokens, keys and values in a file that survives being killed.

The file is mapped, so what a step writes is in the system's hands at once, and outlives the
process. A step first writes keys and values where no committed token is, then their ids, and then
commits: a record in one of two slots (``edgeqwen.cache.session_format``). Taking tokens away is
committed into both slots before anything is written over them. What was sealed is on the disk:
records on the disk are changed before it is written over, and its place isn't used again.
"""

import dataclasses
import mmap
import os
import shutil
import time
import weakref
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path

from edgeqwen.cache.disk import (
    SPARE_BYTES,
    allocate,
    boot_identity,
    disk_full,
    refusals,
    replacement,
    sync,
    write,
)
from edgeqwen.cache.layout import n_segments
from edgeqwen.cache.mapped_segment import MappedSegment
from edgeqwen.cache.session_format import (
    FIRST_UNIT,
    KV_OFFSET,
    MAX_SEGMENTS,
    MAX_TRANSCRIPT_BYTES,
    UNIT_BYTES,
    Commit,
    Extent,
    Identity,
    free_extent,
    units,
)
from edgeqwen.cache.session_lock import SessionLock, lock_handle
from edgeqwen.cache.session_paths import exists, open_session, real_path
from edgeqwen.cache.session_slots import CommitSlots
from edgeqwen.cache.session_state import (
    SessionState,
    read_identity,
    read_state,
    read_transcript,
    tokens_crc,
    write_head,
)
from edgeqwen.cache.tokens import in_order_until
from edgeqwen.errors import ContextFullError, SessionError
from edgeqwen.kernels.attention_types import SEGMENT


class SessionFile:
    """A session file, open for writing by this object alone; ``create`` or ``open`` makes it.

    ``tokens`` are those whose keys and values are in ``segments``. After an error of whatever kind
    it must be abandoned, and opened again.
    """

    def __init__(
        self, path: Path, handle: int, identity: Identity, lock: SessionLock, state: SessionState
    ) -> None:
        self.path, self.identity = path, identity
        self.tokens, self.segments = state.tokens, state.segments
        self._handle, self._lock = handle, lock
        # Also for a session that nobody closed.
        self._close_handle = weakref.finalize(self, os.close, handle)
        self._kv_bytes = identity.layout.segment_bytes
        self._targets: list[MappedSegment] = []
        self._slots = CommitSlots(handle, path, state.commit)
        # In both slots: where one can't be read, it must not come back to life later. What was lost
        # with the system is lost here.
        self._slots.write(dataclasses.replace(state.commit, boot=boot_identity()))
        self._seal_again()

    @classmethod
    def create(
        cls, path: Path, identity: Identity, *, transcript: bytes = b"", replace: bool = False
    ) -> "SessionFile":
        """Makes a session without tokens. ``replace``: in the place of one that there is.

        Raises SessionError if there is a file of that name, SessionLockedError and DiskError.
        """
        path = real_path(path)
        lock = SessionLock.acquire(path)
        try:
            if not replace and exists(path):
                raise SessionError(f"{path}: is there already; open it, or name another file")
            commit = Commit(
                number=1,
                boot=boot_identity(),
                transcript_unit=FIRST_UNIT if transcript else 0,
                transcript_bytes=len(transcript),
                transcript_crc=zlib.crc32(transcript),
                time=time.time(),
            )
            with replacement(path) as handle:
                write_head(handle, path, identity, commit.all_stored())
                if (extent := commit.transcript) is not None:
                    allocate(handle, extent.offset, extent.n_units * UNIT_BYTES, path)
                    with refusals(path):
                        write(handle, extent.offset, transcript)
            return cls._opened(path, identity, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path, expected: Identity) -> "SessionFile":
        """Opens a session of the same model, rope settings and cache type.

        Raises SessionError for anything else or a damaged file, SessionLockedError while it is
        open elsewhere, and DiskError where it can't be written.
        """
        path = real_path(path)
        os.close(open_session(path, os.O_RDONLY))  # no lock beside a file that isn't there
        lock = SessionLock.acquire(path)
        try:
            return cls._opened(path, expected, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _opened(cls, path: Path, expected: Identity, lock: SessionLock) -> "SessionFile":
        handle = open_session(path, os.O_RDWR)
        try:
            lock_handle(handle, path)
            identity = read_identity(handle, path)
            if why := expected.difference(identity):
                raise SessionError(
                    f"{path}: can't be continued: {why}, or have the conversation read again by "
                    "this model (rebuild, --rebuild)"
                )
            state = read_state(handle, path, identity, mmap.ACCESS_WRITE)
            # A file that was copied may have holes, for which a full disk has no room.
            allocate(handle, 0, FIRST_UNIT * UNIT_BYTES, path)
            for segment in state.segments[len(state.tokens) // SEGMENT :]:
                extent = segment.extent
                allocate(handle, extent.offset, extent.n_units * UNIT_BYTES, path)
        except BaseException:
            os.close(handle)
            raise
        return cls(path, handle, identity, lock, state)

    @property
    def _commit(self) -> Commit:
        return self._slots.commit

    @property
    def first_moved(self) -> int:
        """See ``edgeqwen.cache.store.Store``."""
        return self._commit.first_moved

    @property
    def edits(self) -> int:
        """How often tokens were taken away."""
        return self._commit.edits

    def new_segment(self) -> MappedSegment:
        """Adds a segment to the file. Raises DiskError when there is no room for it."""
        if len(self.segments) == MAX_SEGMENTS:
            raise ContextFullError(
                f"{self.path}: a session holds {MAX_SEGMENTS * SEGMENT} tokens at most"
            )
        segment = self._map(self._allocate(units(KV_OFFSET + self._kv_bytes)))
        segment.seal = 0, 0
        self.segments.append(segment)
        return segment

    def append(self, tokens: Sequence[int]) -> None:
        """Commits tokens whose keys and values have been written."""
        ids, done = memoryview(array("i", tokens)), 0
        while done < len(ids):
            index, inside = divmod(len(self.tokens), SEGMENT)
            n = min(len(ids) - done, SEGMENT - inside)
            self.segments[index].ids[inside : inside + n] = ids[done : done + n]
            self.tokens += tokens[done : done + n]
            done += n
        commit, crc = self._commit, zlib.crc32(ids, self._commit.tokens_crc)
        if len(commit.segments) == len(self.segments):
            self._slots.append(len(self.tokens), crc)
        else:
            self._slots.write(
                dataclasses.replace(
                    commit,
                    n_tokens=len(self.tokens),
                    tokens_crc=crc,
                    segments=_first_units(self.segments),
                )
            )

    def truncate(self, n_tokens: int) -> None:
        """Forgets all but the first ``n_tokens`` tokens, and gives segments back."""
        if n_tokens == len(self.tokens):
            return
        del self.tokens[n_tokens:]
        was_stored = n_tokens < self._commit.n_stored
        # Whole segments of it: the seal of one that is cut into doesn't hold any more.
        n_stored = n_tokens // SEGMENT * SEGMENT if was_stored else self._commit.n_stored
        kept = self.segments[: n_segments(n_tokens)]
        first_moved = in_order_until(self._commit.first_moved, n_tokens)
        self._commit_edit(kept, n_stored, first_moved, to_disk=was_stored)
        for segment in self.segments[len(kept) :]:
            segment.close()
        self.segments = kept
        if n_tokens % SEGMENT and self.segments[-1].seal[0] > n_tokens % SEGMENT:
            self.segments[-1].seal = 0, 0  # of what will be written over

    def targets(self, keep: int, n_tokens: int) -> Sequence[MappedSegment]:
        """See ``edgeqwen.cache.store.Store``: beside what is committed, which must stay whole."""
        first = keep // SEGMENT
        self._targets = self.segments[:first]
        for _ in range(first, n_segments(n_tokens)):
            self._targets.append(self._map(self._allocate(units(KV_OFFSET + self._kv_bytes))))
        if keep % SEGMENT:
            # The others are written as a whole, as far as there are tokens.
            kept = self.segments[first].view(0, self._kv_bytes)
            self._targets[first].view(0, self._kv_bytes)[:] = kept
        return self._targets

    def moved(self, keep: int, n_dropped: int) -> None:
        """See ``edgeqwen.cache.store.Store``: commits what was moved, all of it at once."""
        old, self.segments, self._targets = self.segments, self._targets, []
        del self.tokens[keep : keep + n_dropped]
        first = keep // SEGMENT
        for i, segment in enumerate(self.segments[first:], first):
            ids = self.tokens[i * SEGMENT : (i + 1) * SEGMENT]
            segment.tokens[: len(ids)] = ids
            segment.seal = 0, 0
        n_stored = min(self._commit.n_stored, first * SEGMENT)
        first_moved = min(self._commit.first_moved, keep)
        self._commit_edit(self.segments, n_stored, first_moved, to_disk=True)
        for segment in old[first:]:
            segment.close()

    def _commit_edit(
        self, segments: Sequence[MappedSegment], n_stored: int, first_moved: int, *, to_disk: bool
    ) -> None:
        """Commits that of the tokens there were, those of ``tokens`` are left, in ``segments``."""
        self._slots.write(
            dataclasses.replace(
                self._commit,
                n_tokens=len(self.tokens),
                tokens_crc=tokens_crc(self.tokens),
                n_stored=n_stored,
                stored_crc=tokens_crc(self.tokens[:n_stored]),
                edits=self._commit.edits + 1,
                segments=_first_units(segments),
                first_moved=first_moved,
                time=time.time(),
            ),
            to_disk=to_disk,
        )

    @property
    def transcript(self) -> bytes:
        """What ``set_transcript`` stored last; raises SessionError where it is damaged."""
        return read_transcript(self._handle, self._commit, self.path)

    def set_transcript(self, data: bytes) -> None:
        """Stores the text of the conversation, in place of what there was. Raises DiskError.

        Raises SessionError for more than 256 MB.
        """
        if len(data) > MAX_TRANSCRIPT_BYTES:
            raise SessionError(
                f"{self.path}: its messages have {len(data)} bytes, but a session keeps "
                f"{MAX_TRANSCRIPT_BYTES} at most; begin a new session"
            )
        extent = None
        if data:
            extent = self._allocate(units(len(data)))
            with refusals(self.path):
                write(self._handle, extent.offset, data)
        self._slots.write(
            dataclasses.replace(
                self._commit,
                transcript_unit=extent.first if extent else 0,
                transcript_bytes=len(data),
                transcript_crc=zlib.crc32(data),
                time=time.time(),
            )
        )

    def seal(self) -> None:
        """Computes the checksums of what has none, and writes everything to the disk.

        Raises DiskError when the disk refuses.
        """
        with refusals(self.path):
            for i, segment in enumerate(self.segments):
                n = min(SEGMENT, len(self.tokens) - i * SEGMENT)
                if n <= 0 or (segment.seal[0] == n and i * SEGMENT + n <= self._commit.n_stored):
                    continue
                kv = segment.view(0, self._kv_bytes)
                segment.seal = n, self.identity.layout.checksum(kv, n)
                segment.flush()
            stored = self._commit.all_stored()
            if stored != self._commit:
                # First what the record says is there.
                sync(self._handle)
                self._slots.write(stored, to_disk=True)

    def close(self) -> None:
        """Seals the file and lets others open it. Idempotent."""
        if self._handle >= 0:
            try:
                self.seal()
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Lets go of the file as it is, as if the process were killed. Idempotent.

        Each step is: where Ctrl-C comes between them, the next call does the rest.
        """
        self._handle = -1
        for segment in (*self.segments, *self._targets):
            segment.close()
        self.segments, self._targets = [], []
        self._slots.close()
        self._close_handle()
        self._lock.release()

    def _map(self, extent: Extent) -> MappedSegment:
        with refusals(self.path):
            return MappedSegment(self._handle, extent, self._kv_bytes, mmap.ACCESS_WRITE)

    def _allocate(self, n_units: int) -> Extent:
        used = [segment.extent for segment in (*self.segments, *self._targets)]
        # What was sealed must be there until something else is.
        transcripts = self._commit.transcript, self._commit.stored_transcript
        used += [extent for extent in transcripts if extent is not None]
        extent = free_extent(used, n_units)
        size = extent.n_units * UNIT_BYTES
        with refusals(self.path):
            free = shutil.disk_usage(self.path.parent).free
        if free < size + SPARE_BYTES:
            raise disk_full(self.path)
        allocate(self._handle, extent.offset, size, self.path)
        return extent

    def _seal_again(self) -> None:
        """Seals anew what a seal covers beyond the last token: what was lost with the system."""
        index, n = divmod(len(self.tokens), SEGMENT)
        if n and self.segments[index].seal[0] > n:
            kv = self.segments[index].view(0, self._kv_bytes)
            self.segments[index].seal = n, self.identity.layout.checksum(kv, n)


def _first_units(segments: Sequence[MappedSegment]) -> tuple[int, ...]:
    return tuple(segment.extent.first for segment in segments)
