"""Sessions without a model: keys and values that tell which tokens they are of."""

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeqwen.cache import session_file, session_state
from edgeqwen.cache.layout import CacheLayout
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import SLOTS, UNIT_BYTES, Commit, Identity
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


def shift(store: Store, keep: int, n_dropped: int) -> None:
    """Forgets tokens as the engine does: those behind them get other keys and values."""
    tokens = [*store.tokens[:keep], *store.tokens[keep + n_dropped :]]
    _write(store.targets(keep, len(tokens)), tokens, keep)
    store.moved(keep, n_dropped)


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


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SessionFile]:
    session = SessionFile.open(path, IDENTITY)
    try:
        yield session
    finally:
        session.close()


def opened_anew(path: Path) -> contextlib.closing[SessionFile]:
    """Asserts that a session can be opened or made, and closes it."""
    session = SessionFile.open(path, IDENTITY) if path.exists() else create(path)
    session.close()
    return contextlib.closing(SessionFile.open(path, IDENTITY))


def slot_of(data: bytes, which: int) -> bytes:
    start = SLOTS[which] * UNIT_BYTES
    return data[start : start + UNIT_BYTES]


def first_segment(path: Path) -> int:
    """Returns where the first segment's extent begins, in bytes."""
    commit = Commit.decode(slot_of(path.read_bytes(), 0))
    assert commit is not None
    return commit.segments[0] * UNIT_BYTES


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flips a bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def restart(monkeypatch: pytest.MonkeyPatch, boot: bytes) -> None:
    """Makes the system one that was started anew; zeros: one that doesn't tell."""
    for module in (session_file, session_state):
        monkeypatch.setattr(module, "boot_identity", lambda: boot)
