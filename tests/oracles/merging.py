"""Byte-level BPE in plain Python: tokens by a dict, and every merge by a look at all pairs."""

import itertools
from collections.abc import Iterable, Sequence

Ranks = dict[tuple[int, int], tuple[int, int]]
"""By the ids of two tokens: the rank of their merge, and the id of what they become."""


def ranks(tokens: Sequence[str], merges: Iterable[str]) -> Ranks:
    """Returns the table of merges "left right"; of a pair that is there twice, the last counts."""
    ids = {token: i for i, token in enumerate(tokens)}
    found: Ranks = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ")
        found[ids[left], ids[right]] = (rank, ids[left + right])
    return found


def merge_word(ids: Sequence[int], table: Ranks) -> list[int]:
    """Merges the tokens of a word: the lowest rank first, of equals the leftmost."""
    found = list(ids)
    while True:
        pairs = enumerate(itertools.pairwise(found))
        possible = [(*table[pair], i) for i, pair in pairs if pair in table]
        if not possible:
            return found
        _, merged, at = min(possible, key=lambda merge: (merge[0], merge[2]))
        found[at : at + 2] = [merged]
