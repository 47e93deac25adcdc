"""Sequence: tokens that a model has read, and their keys and values."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.layout import CacheLayout, n_segments
from edgeqwen.cache.region import Region
from edgeqwen.errors import ClosedError, OptionError


class Segment(Protocol):
    """Memory for the keys and values of 256 positions."""

    address: int

    def view(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Returns a uint8 view of some of its bytes, which keeps the memory alive."""

    def close(self) -> None:
        """Gives the memory back. Nothing may use its addresses any more."""


class Sequence:
    """Tokens that the model has read, and their KV cache. Made by ``Engine.new_sequence``.

    ``tokens`` are the ids; change them by the methods only.
    """

    def __init__(self, layout: CacheLayout) -> None:
        self.layout = layout
        self.tokens: list[int] = []
        self._segments: list[Segment] = []
        self._table = np.zeros(0, np.int64)
        self._closed = False

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def table(self) -> int:
        """The address of int64: the addresses of the segments. Valid until they become more.

        Raises ClosedError after ``close``.
        """
        self._check_open()
        return int(self._table.ctypes.data)

    def reserve(self, n_tokens: int) -> None:
        """Makes room for so many tokens in all. Raises OptionError when memory is refused."""
        self._check_open()
        n = n_segments(n_tokens)
        if n > len(self._segments):
            while len(self._segments) < n:
                self._segments.append(self._new_segment())
            self._table = np.array([segment.address for segment in self._segments], np.int64)

    def extend(self, tokens: Iterable[int]) -> None:
        """Appends tokens whose keys and values a step has written."""
        self.tokens.extend(tokens)

    def truncate(self, n_tokens: int) -> None:
        """Forgets all but the first ``n_tokens`` tokens."""
        if not 0 <= n_tokens <= len(self.tokens):
            raise OptionError(
                f"can't truncate to {n_tokens} tokens: the sequence holds {len(self.tokens)}"
            )
        del self.tokens[n_tokens:]
        # One segment more is kept: who truncates mostly goes on.
        for segment in self._segments[n_segments(n_tokens) + 1 :]:
            segment.close()
        del self._segments[n_segments(n_tokens) + 1 :]

    def forget(self, first: int, n: int) -> None:
        """Removes ``n`` tokens from ``first`` on, over whose places the later ones were moved."""
        del self.tokens[first : first + n]
        self.truncate(len(self.tokens))

    def close(self) -> None:
        """Frees the KV cache."""
        self._closed = True
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    def _new_segment(self) -> Segment:
        n_bytes = self.layout.segment_bytes
        return Region(n_bytes, purpose=f"the KV cache of {len(self._segments) * 256 + 256} tokens")

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this sequence was closed; make a new one")
