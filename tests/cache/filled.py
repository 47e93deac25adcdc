"""Sessions without a model: keys and values that tell which tokens they are of."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.layout import CacheLayout
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import Identity
from edgeqwen.cache.store import Segment, Store
from edgeqwen.kernels.attention_types import SEGMENT

LAYOUT = CacheLayout(2, 1, 64, "f16")  # 128 KB a segment, 3 units with its head
IDENTITY = Identity(LAYOUT, bytes(range(32)), bytes(32), 1000, "filled")


def random_ids(n: int, seed: int = 0) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(0, 1000, n).tolist()
    return found


def create(path: Path, tokens: Sequence[int] = (), transcript: bytes = b"") -> SessionFile:
    """Returns a new session that holds the tokens."""
    session = SessionFile.create(path, IDENTITY, transcript=transcript)
    extend(session, tokens)
    return session


def extend(store: Store, tokens: Sequence[int]) -> None:
    """Appends tokens as the engine does: room, keys and values, and then the tokens."""
    if tokens:
        while len(store.segments) * SEGMENT < len(store.tokens) + len(tokens):
            store.new_segment()
        _write(store.segments, [*store.tokens, *tokens], len(store.tokens))
        store.append(list(tokens))


def holds(store: Store, tokens: Sequence[int]) -> bool:
    """Whether a store has just these tokens, with their keys and values."""
    return store.tokens == list(tokens) and right_kv(store.segments, tokens)


def right_kv(segments: Sequence[Segment], tokens: Sequence[int]) -> bool:
    """Whether segments have keys and values of these tokens."""
    for position, mark in enumerate(marks(tokens)):
        keys, values = _elements(segments, position)
        if not (keys == mark).all() or not (values == mark).all():
            return False
    return True


def _write(segments: Sequence[Segment], tokens: Sequence[int], first: int) -> None:
    for position, mark in enumerate(marks(tokens)):
        if position >= first:
            keys, values = _elements(segments, position)
            keys[:] = mark
            values[:] = mark


def marks(tokens: Sequence[int]) -> NDArray[np.uint16]:
    """Returns uint16 [n]: of each token, what depends on it and on all before it."""
    crc, found = 0, []
    for token in tokens:
        crc = zlib.crc32(token.to_bytes(4, "little"), crc)
        found.append(crc & 0xFFFF)
    return np.array(found, np.uint16)


def _elements(
    segments: Sequence[Segment], position: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Returns views of a position's K [layers * heads, 64] and V [layers * heads, 2, 32]."""
    index, inside = divmod(position, SEGMENT)
    halves = segments[index].view(0, LAYOUT.segment_bytes).view(np.uint16)
    halves = halves.reshape(-1, 2, SEGMENT * LAYOUT.head_dim)
    keys = halves[:, 0].reshape(-1, SEGMENT // 32, LAYOUT.head_dim, 32)
    values = halves[:, 1].reshape(-1, SEGMENT // 64, LAYOUT.head_dim // 32, 64, 32)
    return keys[:, inside // 32, :, inside % 32], values[:, inside // 64, :, inside % 64, :]
