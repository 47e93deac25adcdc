"""What an importance matrix file of either kind holds: entries, and where they are from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeqwen.errors import EdgeqwenError, FileFormatError

# No text has as many tokens; float32, in which files hold counts, is exact up to 1 << 24.
MAX_COUNT = 1 << 40


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One matrix: the sums of the squares of its inputs, and how many tokens were summed up.

    ``in_sum2``: float32 [columns], finite and not negative.
    """

    in_sum2: NDArray[np.float32]
    count: int


class ImatrixParts(NamedTuple):
    """A file's contents: ``chunk_count`` windows of ``chunk_size`` tokens of ``datasets``."""

    entries: dict[str, Entry]
    chunk_count: int
    chunk_size: int
    datasets: tuple[str, ...]


def checked_entry(in_sum2: NDArray[np.float32], count: float, place: str) -> Entry:
    """Returns an entry from a file; FileFormatError for sums and counts that can't be."""
    bad = np.flatnonzero(~(np.isfinite(in_sum2) & (in_sum2 >= 0)))
    if len(bad):
        raise FileFormatError(
            f"{place}: the sum of column {bad[0]} is {in_sum2[bad[0]]}, expected a finite one of "
            "at least 0, for it is of squares; collect the importance matrix again"
        )
    if not 0 <= count <= MAX_COUNT:
        raise FileFormatError(
            f"{place}: was collected from {count:g} tokens, expected 0 to {MAX_COUNT}; collect the "
            "importance matrix again"
        )
    in_sum2.flags.writeable = False
    return Entry(in_sum2, round(count))


def summed_entry(sums: NDArray[np.float64], count: int, name: str) -> Entry:
    """Returns an entry from sums that were just added up, of no squares below zero.

    Raises EdgeqwenError if one is NaN, or more than the float32 of a file holds.
    """
    with np.errstate(over="ignore"):
        in_sum2 = sums.astype(np.float32)
    if not np.isfinite(in_sum2).all():
        column = np.flatnonzero(~np.isfinite(in_sum2))[0]
        raise EdgeqwenError(
            f"{name}: the squares of the activations of column {column} add up to {sums[column]}; "
            "the model file is damaged, or its numbers overflow"
        )
    in_sum2.flags.writeable = False
    return Entry(in_sum2, count)
