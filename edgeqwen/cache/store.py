"""Store: where a sequence's tokens, keys and values are kept. In memory; a session is another."""

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.layout import CacheLayout, n_segments
from edgeqwen.cache.region import Region
from edgeqwen.cache.tokens import ALL_IN_ORDER, in_order_until
from edgeqwen.kernels.attention_types import SEGMENT

# Reading so few tokens of a prompt takes no longer than finding and mapping them.
WORTH_FINDING = SEGMENT
# What took longer to read than this is kept for other processes.
WORTH_KEEPING = 2 * SEGMENT


class Segment(Protocol):
    """Memory for the keys and values of 256 positions; ``address`` is where they begin."""

    address: int

    def view(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Returns a uint8 view of some of its bytes."""

    def close(self) -> None:
        """Gives the memory back. Nothing may use its address any more."""


class Store(Protocol):
    """Tokens, and segments with room for at least as many."""

    tokens: list[int]

    @property
    def first_moved(self) -> int:
        """The first position that was moved when tokens before it were forgotten.

        From there on, keys and values aren't what reading the tokens alone gives: they still know
        what was forgotten. ALL_IN_ORDER where there is none.
        """

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, in the order of the positions."""

    def new_segment(self) -> Segment:
        """Adds a segment at the end. Raises OptionError or DiskError when there is no room."""

    def append(self, tokens: Sequence[int]) -> None:
        """Appends tokens whose keys and values have been written."""

    def truncate(self, n_tokens: int) -> None:
        """Forgets all but the first ``n_tokens`` tokens, of which there are as many."""

    def targets(self, keep: int, n_tokens: int) -> Sequence[Segment]:
        """Returns segments for ``n_tokens`` tokens, of which the first ``keep`` are in them.

        The others are about to be moved there from behind tokens that are forgotten; each comes
        from a later position. Raises OptionError or DiskError when there is no room.
        """

    def moved(self, keep: int, n_dropped: int) -> None:
        """Forgets ``n_dropped`` tokens behind the first ``keep``: the targets are the segments."""

    def seal(self) -> None:
        """Keeps what there is as safe as it can: called when nobody waits for the next token."""

    def close(self) -> None:
        """Gives everything back. Idempotent."""

    def abandon(self) -> None:
        """Like ``close``, after a failure: what was kept before stays as it is."""


class SharedSegment:
    """A segment that several stores use, until one of them has to write into it."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._lock = threading.Lock()  # prompts are kept by another thread
        self.address = segment.address
        self.n_users = 1

    def view(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Returns a uint8 view of some of its bytes."""
        return self._segment.view(offset, size)

    def share(self) -> "SharedSegment":
        """Counts one user more, who calls ``close``, too."""
        with self._lock:
            self.n_users += 1
        return self

    def close(self) -> None:
        """Gives the memory back when no user is left."""
        with self._lock:
            self.n_users -= 1
            if self.n_users == 0:
                self._segment.close()


class MemoryStore:
    """Keeps a sequence in memory, which goes with the process.

    Segments that are full may be shared with forks; a fork copies what it must change.
    """

    def __init__(
        self, layout: CacheLayout, tokens: Iterable[int] = (), segments: Iterable[Segment] = ()
    ) -> None:
        """Takes ``segments`` over, which hold keys and values of ``tokens``."""
        self.layout = layout
        self.tokens: list[int] = [*tokens]
        self.first_moved = ALL_IN_ORDER
        self.segments: list[SharedSegment] = [
            s if isinstance(s, SharedSegment) else SharedSegment(s) for s in segments
        ]

    def new_segment(self) -> Segment:
        """See ``Store``."""
        self.segments.append(self._made())
        return self.segments[-1]

    def append(self, tokens: Sequence[int]) -> None:
        """See ``Store``."""
        self.tokens.extend(tokens)

    def truncate(self, n_tokens: int) -> None:
        """See ``Store``."""
        n_kept = n_segments(n_tokens)
        if n_tokens % SEGMENT:
            # Its other positions will be written anew, which other users must not see.
            self._own(n_kept - 1)
        del self.tokens[n_tokens:]
        self.first_moved = in_order_until(self.first_moved, n_tokens)
        for segment in self.segments[n_kept:]:
            segment.close()
        del self.segments[n_kept:]

    def targets(self, keep: int, n_tokens: int) -> Sequence[Segment]:
        """See ``Store``: in place, but for what others use, too."""
        for i in range(keep // SEGMENT, n_segments(n_tokens)):
            self._own(i)
        return self.segments[: n_segments(n_tokens)]

    def moved(self, keep: int, n_dropped: int) -> None:
        """See ``Store``."""
        del self.tokens[keep : keep + n_dropped]
        self.first_moved = min(self.first_moved, keep)
        self.truncate(len(self.tokens))

    def fork(self, n_tokens: int) -> "MemoryStore":
        """Returns a store with the first ``n_tokens`` tokens, which both may then change."""
        n_full = n_tokens // SEGMENT
        made = MemoryStore(
            self.layout, self.tokens[:n_tokens], [s.share() for s in self.segments[:n_full]]
        )
        made.first_moved = in_order_until(self.first_moved, n_tokens)
        if n_tokens % SEGMENT:
            made.segments.append(self._copy_of(self.segments[n_full]))
        return made

    @classmethod
    def copy_of(cls, store: Store, layout: CacheLayout, n_tokens: int) -> "MemoryStore":
        """Returns a copy of the first ``n_tokens`` tokens of any store."""
        made = cls(layout, store.tokens[:n_tokens])
        made.first_moved = in_order_until(store.first_moved, n_tokens)
        for segment in store.segments[: n_segments(n_tokens)]:
            made.segments.append(made._copy_of(segment))
        return made

    def seal(self) -> None:
        """See ``Store``: memory is never safe."""

    def close(self) -> None:
        """See ``Store``."""
        for segment in self.segments:
            segment.close()
        self.segments.clear()

    def abandon(self) -> None:
        """See ``Store``."""
        self.close()

    def _own(self, i: int) -> None:
        """Copies a segment that others use, too."""
        shared = self.segments[i]
        if shared.n_users > 1:
            self.segments[i] = self._copy_of(shared)
            shared.close()

    def _made(self) -> SharedSegment:
        n_tokens = (len(self.segments) + 1) * SEGMENT
        purpose = f"a KV cache for {n_tokens} tokens"
        return SharedSegment(Region(self.layout.segment_bytes, purpose=purpose))

    def _copy_of(self, segment: Segment) -> SharedSegment:
        made, size = self._made(), self.layout.segment_bytes
        made.view(0, size)[:] = segment.view(0, size)
        return made
