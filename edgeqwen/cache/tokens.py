"""Comparing sequences of tokens."""

from collections.abc import Sequence

import numpy as np

ALL_IN_ORDER = 0xFFFFFFFF
"""The ``first_moved`` of a store in which no token was moved."""


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Returns how many tokens two sequences begin with in common."""
    n = min(len(a), len(b))
    different = np.flatnonzero(np.array(a[:n], np.int64) != np.array(b[:n], np.int64))
    return int(different[0]) if len(different) else n


def in_order_until(first_moved: int, n_tokens: int) -> int:
    """Returns what ``first_moved`` is when only the first ``n_tokens`` tokens are left."""
    return first_moved if first_moved < n_tokens else ALL_IN_ORDER
