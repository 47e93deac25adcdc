"""Comparing sequences of tokens."""

from collections.abc import Sequence

import numpy as np


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Returns how many tokens two sequences begin with in common."""
    n = min(len(a), len(b))
    different = np.flatnonzero(np.array(a[:n], np.int64) != np.array(b[:n], np.int64))
    return int(different[0]) if len(different) else n
