"""Sequence: tokens that a model has read, with their keys and values, to go on with."""

import numpy as np

from edgeqwen.cache.layout import CacheLayout
from edgeqwen.cache.store import MemoryStore, Store
from edgeqwen.errors import ClosedError, OptionError
from edgeqwen.kernels.attention_types import SEGMENT


class Sequence:
    """Tokens that the model has read, and their KV cache. Made by ``Engine.new_sequence``."""

    def __init__(self, layout: CacheLayout, store: Store | None = None) -> None:
        """Takes ``store`` over; by default, the sequence is empty and lives in memory."""
        self.layout = layout
        self._store: Store = MemoryStore(layout) if store is None else store
        self._table = self._targets = np.zeros(0, np.int64)
        self._closed = False

    @property
    def tokens(self) -> list[int]:
        """The ids of the tokens, to be read only."""
        return self._store.tokens

    @property
    def n_tokens(self) -> int:
        return len(self._store.tokens)

    @property
    def n_in_order(self) -> int:
        """Of so many of the first tokens, keys and values are what reading them alone gives.

        Those behind tokens that were forgotten still know these.
        """
        return min(self._store.first_moved, self.n_tokens)

    @property
    def store(self) -> Store:
        """Where the tokens, keys and values are kept. Raises ClosedError after ``close``."""
        self._check_open()
        return self._store

    def reserve(self, n_tokens: int) -> int:
        """Makes room for so many tokens in all.

        Returns the address of int64: the addresses of the segments, valid until the next call or
        ``truncate``. Raises OptionError or DiskError when memory or the disk has no room, and
        ClosedError.
        """
        self._check_open()
        store = self._store
        while len(store.segments) * SEGMENT < n_tokens:
            store.new_segment()
        if len(self._table) != len(store.segments):
            self._table = np.array([segment.address for segment in store.segments], np.int64)
        return int(self._table.ctypes.data)

    def extend(self, tokens: list[int]) -> None:
        """Appends tokens whose keys and values a step has written."""
        self._store.append(tokens)

    def truncate(self, n_tokens: int) -> None:
        """Forgets all but the first ``n_tokens`` tokens."""
        self._check_open()
        if not 0 <= n_tokens <= self.n_tokens:
            raise OptionError(
                f"can't truncate to {n_tokens} tokens: the sequence holds {self.n_tokens}"
            )
        self._table = np.zeros(0, np.int64)
        self._store.truncate(n_tokens)

    def move_to(self, keep: int, n_dropped: int) -> tuple[int, int]:
        """Prepares to forget ``n_dropped`` tokens behind the first ``keep``.

        Returns the addresses of two tables of segments: where the tokens are, and where those
        behind the dropped ones are to be moved, into the places from ``keep`` on. ``moved`` comes
        next. Raises OptionError or DiskError when there is no room, and ClosedError.
        """
        self._check_open()
        # First: a store that fails half-way may have given segments back.
        self._table = np.zeros(0, np.int64)
        targets = self._store.targets(keep, self.n_tokens - n_dropped)
        self._targets = np.array([segment.address for segment in targets], np.int64)
        return self.reserve(0), int(self._targets.ctypes.data)

    def moved(self, keep: int, n_dropped: int) -> None:
        """Forgets tokens over whose places the later ones were moved."""
        self._store.moved(keep, n_dropped)
        self._table = np.zeros(0, np.int64)

    def fork(self, n_tokens: int | None = None) -> "Sequence":
        """Returns another sequence with the first ``n_tokens`` tokens, or all, in memory.

        Each may then be continued without the other. Raises OptionError and ClosedError.
        """
        return Sequence(self.layout, self.copied(self.n_tokens if n_tokens is None else n_tokens))

    def copied(self, n_tokens: int) -> MemoryStore:
        """Returns the first ``n_tokens`` tokens, for another sequence. Raises like ``fork``."""
        self._check_open()
        if not 0 <= n_tokens <= self.n_tokens:
            raise OptionError(f"can't copy {n_tokens} tokens: the sequence holds {self.n_tokens}")
        if isinstance(self._store, MemoryStore):
            return self._store.fork(n_tokens)
        # The owner of a file may write over what it takes away.
        return MemoryStore.copy_of(self._store, self.layout, n_tokens)

    def go_on_with(self, other: MemoryStore) -> None:
        """Appends what another store holds beyond this sequence's tokens, which it begins with.

        Raises OptionError and DiskError when there is no room.
        """
        n, n_bytes = self.n_tokens, self.layout.segment_bytes
        if other.layout != self.layout or other.tokens[:n] != self.tokens:
            raise OptionError("this store doesn't go on where the sequence ends")
        self.reserve(len(other.tokens))
        # Also what is there of the first segment: of the same tokens, it is the same.
        for i in range(n // SEGMENT, len(other.segments)):
            self._store.segments[i].view(0, n_bytes)[:] = other.segments[i].view(0, n_bytes)
        self.extend(other.tokens[n:])

    def seal(self) -> None:
        """Makes a session's file as safe as it can be; raises DiskError."""
        self._check_open()
        self._store.seal()

    def close(self) -> None:
        """Frees the KV cache; a session's file is sealed. Idempotent."""
        if not self._closed:
            self._closed = True
            self._store.close()

    def abandon(self) -> None:
        """Frees the KV cache after a failure; a session's file stays as it was committed last."""
        if not self._closed:
            self._closed = True
            self._store.abandon()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this sequence was closed; make a new one")
