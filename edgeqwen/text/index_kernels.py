"""The kernels that make the tables of byte-level BPE: the tokens by their bytes, and the merges.

Strings lie in a block of bytes, with eight more bytes before each, as ``gguf_arrays`` has them:
``starts``, uint32 [n + 1], holds where in ``data`` each begins.

Both tables are open-addressed: they have a power of two of slots, of which an empty one is zero,
and some are empty. In the *index*, a slot of 8 bytes holds half of the hash of a token's bytes and
its id + 1. In the *merges*, a slot of 16 bytes holds the ids of two tokens, as one number, + 1, and
a value: the merge's rank (the lowest is applied first) above 32 bits with the merged token's id.
``key`` is an odd random number below 2 ** 63: nobody can make a file whose hashes are all the same.
"""

import numpy as np

from edgeqwen.simd.compile import inline_kernel, kernel
from edgeqwen.simd.ops import peek_i64, peek_u8, peek_u32, poke_i64

LOW = (1 << 32) - 1
"""The lower half of an int64."""
_SPACE = 32


@inline_kernel
def merge_slot(pair, bits, key):  # type: ignore[no-untyped-def]
    """Returns where to look first for the two ids in ``pair``, among 2 ** ``bits`` slots."""
    return ((pair * key) >> (64 - bits)) & ((1 << bits) - 1)


@inline_kernel
def _hash(hash, text, n, key):  # type: ignore[no-untyped-def]
    """Continues a hash, which begins as ``key``, with n more bytes."""
    for i in range(n):
        hash = (hash ^ np.int64(peek_u8(text + i))) * key
        hash ^= hash >> 29
    return hash


@inline_kernel
def _is_at(place, text, n):  # type: ignore[no-untyped-def]
    """Tells whether the same n bytes are at two addresses."""
    i = 0
    while i < n and peek_u8(place + i) == peek_u8(text + i):
        i += 1
    return i == n


@inline_kernel
def _joins(data, starts, id, left, n_left, right, n_right):  # type: ignore[no-untyped-def]
    """Tells whether a token is ``left`` and ``right`` together."""
    start = np.int64(peek_u32(starts + 4 * id))
    if np.int64(peek_u32(starts + 4 * id + 4)) - 8 - start != n_left + n_right:
        return False
    return _is_at(data + start, left, n_left) and _is_at(data + start + n_left, right, n_right)


@inline_kernel
def _find(data, starts, index, mask, hash, left, n_left, right, n_right):  # type: ignore[no-untyped-def]
    """Returns the id of the token that is ``left`` and ``right`` together.

    If there is none, returns -1 - slot for the empty slot that is its place.
    """
    slot = hash & mask
    while True:
        entry = peek_i64(index + 8 * slot)
        if entry == 0:
            return -1 - slot
        if (entry ^ hash) >> 32 == 0:
            id = (entry & LOW) - 1
            if _joins(data, starts, id, left, n_left, right, n_right):
                return id
        slot = (slot + 1) & mask


@kernel
def index_tokens(data, starts, n_tokens, index, mask, key):  # type: ignore[no-untyped-def]
    """Fills in the index, ``mask`` + 1 slots; returns -1.

    If a token is there twice, returns its first id above 32 bits with its second one.
    """
    for id in range(n_tokens):
        start = np.int64(peek_u32(starts + 4 * id))
        n = np.int64(peek_u32(starts + 4 * id + 4)) - 8 - start
        hash = _hash(key, data + start, n, key)
        found = _find(data, starts, index, mask, hash, data + start, n, data, 0)
        if found >= 0:
            return (found << 32) | id
        poke_i64(index + 8 * (-1 - found), (hash & ~LOW) | (id + 1))
    return -1


@kernel
def index_merges(  # type: ignore[no-untyped-def]
    data, starts, n_tokens, index, mask, texts, text_starts, n_merges, merges, bits, key
):
    """Fills in the merges, 2 ** ``bits`` slots; returns -1.

    ``texts`` with ``text_starts`` are the strings "left right", in the order of their ranks. Of a
    pair that is there twice, the last counts. If a merge is no two tokens with a space between, or
    if they or the merged token aren't in the index, returns its rank.
    """
    merged = 0
    for rank in range(n_merges):
        start = np.int64(peek_u32(text_starts + 4 * rank))
        n = np.int64(peek_u32(text_starts + 4 * rank + 4)) - 8 - start
        left = texts + start
        n_left = 0
        while n_left < n and peek_u8(left + n_left) != _SPACE:
            n_left += 1
        right = left + n_left + 1
        n_right = n - n_left - 1
        if n_right < 0:
            return rank
        for i in range(n_right):
            if peek_u8(right + i) == _SPACE:
                return rank
        hash = _hash(key, left, n_left, key)
        first = _find(data, starts, index, mask, hash, left, n_left, data, 0)
        # Where tokens are in the order in which they were learnt, it is the one after the last.
        merged += 1
        if merged >= n_tokens or not _joins(data, starts, merged, left, n_left, right, n_right):
            hash = _hash(hash, right, n_right, key)
            merged = _find(data, starts, index, mask, hash, left, n_left, right, n_right)
        hash = _hash(key, right, n_right, key)
        second = _find(data, starts, index, mask, hash, right, n_right, data, 0)
        if first < 0 or second < 0 or merged < 0:
            return rank
        pair = (first << 32) | second
        slot = merge_slot(pair, bits, key)
        found = peek_i64(merges + 16 * slot)
        while found != 0 and found != pair + 1:
            slot = (slot + 1) & ((1 << bits) - 1)
            found = peek_i64(merges + 16 * slot)
        poke_i64(merges + 16 * slot, pair + 1)
        poke_i64(merges + 16 * slot + 8, (rank << 32) | merged)
    return -1
