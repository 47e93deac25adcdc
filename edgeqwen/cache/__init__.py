"""The KV cache: its layout in memory, and the memory-mapped region that holds a sequence's."""

from edgeqwen.cache.layout import CacheLayout
from edgeqwen.cache.region import Region
from edgeqwen.cache.sequence import Sequence

__all__ = ["CacheLayout", "Region", "Sequence"]
