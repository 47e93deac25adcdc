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
        self._table = np.zeros(0, np.int64)
        self._closed = False

    @property
    def tokens(self) -> list[int]:
        """The ids of the tokens, to be read only."""
        return self._store.tokens

    @property
    def n_tokens(self) -> int:
        return len(self._store.tokens)

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

    def fork(self, n_tokens: int | None = None) -> "Sequence":
        """Returns another sequence with the first ``n_tokens`` tokens, or all, in memory.

        Each may then be continued without the other. Raises OptionError and ClosedError.
        """
        self._check_open()
        n = self.n_tokens if n_tokens is None else n_tokens
        if not 0 <= n <= self.n_tokens:
            raise OptionError(f"can't fork {n} tokens: the sequence holds {self.n_tokens}")
        if isinstance(self._store, MemoryStore):
            return Sequence(self.layout, self._store.fork(n))
        # The owner of a file may write over what it takes away.
        return Sequence(self.layout, MemoryStore.copy_of(self._store, self.layout, n))

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
