"""PrefixStore: the states of long prompts, kept in the user's cache folder and used again.

Each is a session file of its own that never changes: whoever uses one maps it, and what is written
over its end goes into memory of the process's own. A file's name begins with the digest of its
first 256 tokens, so that few files need be looked at for a prompt.
"""

import contextlib
import hashlib
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edgeqwen.cache.layout import n_segments
from edgeqwen.cache.mapped_segment import MappedSegment
from edgeqwen.cache.session_format import Identity
from edgeqwen.cache.session_state import opened, read_state, read_tokens
from edgeqwen.cache.session_writing import session_bytes, write_session
from edgeqwen.cache.store import WORTH_FINDING, MemoryStore
from edgeqwen.cache.tokens import common_prefix
from edgeqwen.errors import EdgeqwenError
from edgeqwen.kernels.attention_types import SEGMENT

SUFFIX = ".prefix"
# Never more than this part of what is free on the disk.
_SHARE_OF_FREE = 0.25
# How long another process may take to store something; then this one goes without.
_PATIENCE_SECONDS = 10.0


class PrefixStore:
    """Prompts of one model on the disk, beside those of others; several processes may share it.

    ``identity`` is asked for when something is kept, which may take time; ``is_known`` tells
    whether it was before: else nothing can have been kept. ``computed_by`` names what else the last
    bits depend on: instructions and version. What fails is as if it weren't there: the store only
    saves time.
    """

    def __init__(
        self,
        folder: Path,
        identity: Callable[[], Identity],
        is_known: Callable[[], bool],
        limit_bytes: int,
        computed_by: str,
    ) -> None:
        self._folder, self._identity, self._is_known = folder, identity, is_known
        self._limit_bytes, self._computed_by = limit_bytes, computed_by
        self._threads: list[threading.Thread] = []

    def find(self, prompt: Sequence[int], n_known: int) -> MemoryStore | None:
        """Returns the longest beginning of a prompt that is kept, if that saves much.

        It leaves one token at least to be read. ``n_known``: tokens that needn't be found.
        """
        if not self._is_known():
            return None
        with contextlib.suppress(OSError):
            lengths = [(self._n_shared(path, prompt), path) for path in self._candidates(prompt)]
            for n, path in sorted(lengths, reverse=True):
                if n < n_known + WORTH_FINDING:
                    break
                if (store := self._mapped(path, n)) is not None:
                    return store
        return None

    def _n_shared(self, path: Path, prompt: Sequence[int]) -> int:
        """Returns how many tokens of a prompt an entry begins with, without the prompt's last."""
        with contextlib.suppress(EdgeqwenError, OSError), self._open(path) as (handle, identity):
            return common_prefix(read_tokens(handle, path, identity)[1], prompt[:-1])
        return 0

    def _mapped(self, path: Path, n: int) -> MemoryStore | None:
        """Returns an entry's first ``n`` tokens; deletes one whose keys and values are damaged."""
        with contextlib.suppress(EdgeqwenError, OSError), self._open(path) as (handle, identity):
            state = read_state(handle, path, identity, mmap.ACCESS_COPY)
            kept = state.segments[: n_segments(n)]
            for segment in state.segments[len(kept) :]:
                segment.close()
            if all(_is_sound(segment, identity) for segment in kept):
                with contextlib.suppress(OSError):
                    os.utime(path)  # the least recently used is the first to go
                return MemoryStore(identity.layout, state.tokens[:n], kept)
            state.close()
            path.unlink(missing_ok=True)
        return None

    def keep(self, store: MemoryStore) -> None:
        """Keeps a prompt, which is written by a thread of its own; takes ``store`` over."""
        thread = threading.Thread(target=self._keep, args=(store,), name="edgeqwen-prefix")
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def wait(self) -> None:
        """Returns when everything is written."""
        for thread in self._threads:
            thread.join()

    def _keep(self, store: MemoryStore) -> None:
        try:
            with contextlib.suppress(OSError, EdgeqwenError):
                identity = self._identity()
                folder = self._folder_of(identity)
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                name = f"{_name_of(store.tokens)}-{_digest(_bytes_of(store.tokens))}{SUFFIX}"
                with _locked(self._folder) as is_locked:
                    n_bytes = session_bytes(identity, store)
                    if is_locked and not (folder / name).exists() and self._make_room(n_bytes):
                        shorter = self._beginnings(store.tokens)
                        write_session(folder / name, identity, store)
                        for path in shorter:
                            path.unlink(missing_ok=True)
        finally:
            store.close()

    def _make_room(self, n_bytes: int) -> bool:
        """Deletes what was used least recently until there is room; False if that isn't enough.

        The lock is held: what is half written was left by processes that were killed.
        """
        _delete_halves(self._folder)
        free = shutil.disk_usage(self._folder).free
        entries = stored_prefixes(self._folder)
        total = sum(size for _, size, _ in entries)
        limit = min(self._limit_bytes, total + int(free * _SHARE_OF_FREE))
        if n_bytes > limit:
            return False
        for path, size, _ in entries:
            if total + n_bytes <= limit:
                break
            with contextlib.suppress(OSError):  # in use, under Windows
                path.unlink(missing_ok=True)
                total -= size
        return total + n_bytes <= limit

    def _candidates(self, tokens: Sequence[int]) -> list[Path]:
        return [*self._folder_of(self._identity()).glob(f"{_name_of(tokens)}-*{SUFFIX}")]

    def _folder_of(self, identity: Identity) -> Path:
        return self._folder / _digest(identity.encode() + self._computed_by.encode())

    def _beginnings(self, tokens: Sequence[int]) -> list[Path]:
        """Returns what is kept and needn't be, when a longer prompt that begins with it is."""
        found = []
        for path in self._candidates(tokens):
            with contextlib.suppress(EdgeqwenError, OSError), self._open(path) as (handle, whose):
                known = read_tokens(handle, path, whose)[1]
                if common_prefix(known, tokens) == len(known):
                    found.append(path)
        return found

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[tuple[int, Identity]]:
        """Opens an entry of this model: its handle and identity."""
        with opened(path) as (handle, identity):
            if (why := self._identity().difference(identity)) is not None:
                raise EdgeqwenError(why)
            yield handle, identity


def _is_sound(segment: MappedSegment, identity: Identity) -> bool:
    covered, expected = segment.seal
    kv = segment.view(0, identity.layout.segment_bytes)
    return 0 < covered <= SEGMENT and identity.layout.checksum(kv, covered) == expected


def stored_prefixes(folder: Path) -> list[tuple[Path, int, float]]:
    """Returns all that is kept, of all models: path, bytes, time of the last use; oldest first."""
    found = []
    for path in folder.glob(f"*/*{SUFFIX}"):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: entry[2])


def clear_prefixes(folder: Path) -> tuple[int, int]:
    """Deletes all that is kept; returns how many prompts and bytes that were."""
    n = n_bytes = 0
    with _locked(folder) as is_locked:
        for path, size, _ in stored_prefixes(folder):
            with contextlib.suppress(OSError):
                path.unlink()
                n, n_bytes = n + 1, n_bytes + size
        if is_locked:  # else somebody is writing
            _delete_halves(folder)
        for path in folder.glob("*/"):
            with contextlib.suppress(OSError):
                path.rmdir()
    return n, n_bytes


def _delete_halves(folder: Path) -> None:
    for path in folder.glob("*/.*.new"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds the lock of the store; yields False if somebody else does all the time."""
    import filelock

    if not folder.is_dir():
        yield True
        return
    lock = filelock.FileLock(folder / ".lock", timeout=_PATIENCE_SECONDS, is_singleton=False)
    try:
        lock.acquire()
    except (filelock.Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _name_of(tokens: Sequence[int]) -> str:
    return _digest(_bytes_of(tokens[:SEGMENT]))


def _bytes_of(tokens: Sequence[int]) -> bytes:
    return np.array(tokens, "<i4").tobytes()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]
