"""Stores full of known bytes, and identities of models that don't exist."""

import numpy as np

from edgeqwen.cache import CacheLayout, MemoryStore
from edgeqwen.cache.session_format import Identity

LAYOUT = CacheLayout(n_layers=2, n_kv_heads=1, head_dim=32, cache_type="f16")
VOCAB_SIZE = 1000


def identity(weights: bytes = b"w" * 32, layout: CacheLayout = LAYOUT) -> Identity:
    return Identity(layout, weights, b"s" * 32, VOCAB_SIZE, "a model")


def random_ids(n: int, seed: int = 0) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(0, VOCAB_SIZE, n).tolist()
    return ids


def filled_store(tokens: list[int], seed: int = 0) -> MemoryStore:
    """Returns a store whose keys and values are random bytes."""
    store, rng = MemoryStore(LAYOUT), np.random.default_rng(seed)
    for _ in range(0, len(tokens), 256):
        view = store.new_segment().view(0, LAYOUT.segment_bytes)
        view[:] = rng.integers(0, 256, LAYOUT.segment_bytes, np.uint8)
    store.append(tokens)
    return store


def kv_bytes(store: MemoryStore) -> list[bytes]:
    return [segment.view(0, LAYOUT.segment_bytes).tobytes() for segment in store.segments]
