"""From bytes to tokens: an index of all tokens, and made with it, the table of merges.

Both read the strings where they lie in the file's metadata, in kernels: as Python objects, the
150,000 tokens and as many merges of a model would take 100 MB and a third of a second.
"""

import os

import numpy as np
import numpy.typing as npt

from edgeqwen.gguf_arrays import StringArray
from edgeqwen.text.index_kernels import index_merges, index_tokens
from edgeqwen.text.merge_kernels import WORK, merge_words


class DuplicateTokenError(Exception):
    """A token that is there twice; ``first`` and ``second`` are its ids."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first, second)
        self.first, self.second = first, second


class BadMergeError(Exception):
    """A merge that is no two tokens whose merged token exists; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class TokenIndex:
    """The ids of tokens by their bytes. Raises DuplicateTokenError."""

    def __init__(self, tokens: StringArray) -> None:
        self._tokens = tokens
        self._key = _random_key()
        self._slots = np.zeros(1 << _table_bits(len(tokens)), np.int64)
        found = index_tokens(
            *tokens.addresses(),
            len(tokens),
            self._slots.ctypes.data,
            len(self._slots) - 1,
            self._key,
        )
        if found >= 0:
            raise DuplicateTokenError(found >> 32, found & 0xFFFFFFFF)

    def merge_table(self, merges: StringArray, byte_ids: npt.NDArray[np.int32]) -> "MergeTable":
        """Makes the table of merges "left right", the first of them the first to be applied.

        ``byte_ids``: int32 [256], the token of each byte. Raises BadMergeError.
        """
        bits = _table_bits(len(merges))
        slots = np.zeros((1 << bits, 2), np.int64)
        bad = index_merges(
            *self._tokens.addresses(),
            len(self._tokens),
            self._slots.ctypes.data,
            len(self._slots) - 1,
            *merges.addresses(),
            len(merges),
            slots.ctypes.data,
            bits,
            self._key,
        )
        if bad >= 0:
            raise BadMergeError(bad)
        return MergeTable(slots, self._key, byte_ids)


class MergeTable:
    """What two neighbouring tokens become; made by ``TokenIndex.merge_table``. Never changes."""

    def __init__(
        self, slots: npt.NDArray[np.int64], key: int, byte_ids: npt.NDArray[np.int32]
    ) -> None:
        self._slots, self._key, self._byte_ids = slots, key, byte_ids
        self._bits = len(slots).bit_length() - 1

    def merged(self, words: bytes, separator: int) -> list[int]:
        """Returns the ids of the tokens of all words.

        ``separator``: the byte between words, which is in none of them. Each byte of a word begins
        as a token. Of the neighbours that a merge joins, those with the first merge are joined, of
        equals the leftmost, until there are none.
        """
        text = np.frombuffer(words, np.uint8)
        ends = np.append(np.flatnonzero(text == separator), len(text))
        longest = int(np.diff(ends, prepend=-1).max()) - 1
        ids = np.empty(len(text), np.int32)
        work = np.empty(WORK * longest, np.int64)
        n_ids = merge_words(
            text.ctypes.data,
            ends.ctypes.data,
            len(ends),
            self._byte_ids.ctypes.data,
            self._slots.ctypes.data,
            self._bits,
            self._key,
            ids.ctypes.data,
            work.ctypes.data,
        )
        found: list[int] = ids[:n_ids].tolist()
        return found


def _random_key() -> int:
    return int.from_bytes(os.urandom(8)) >> 1 | 1


def _table_bits(n: int) -> int:
    """Returns the logarithm of a table's slots, of which n fill two thirds at most."""
    return (n + n // 2 + 1).bit_length()
