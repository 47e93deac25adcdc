"""The KV cache: its layout, sequences of tokens in memory, and in session files."""

from edgeqwen.cache.layout import CacheLayout
from edgeqwen.cache.region import Region
from edgeqwen.cache.sequence import Sequence
from edgeqwen.cache.store import MemoryStore, Store

__all__ = ["CacheLayout", "MemoryStore", "Region", "Sequence", "Store"]
