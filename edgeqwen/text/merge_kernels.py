"""The kernel that merges the bytes of words into tokens, and all that a tokenizer compiles.

The table of merges is that of ``index_kernels``. What it holds for two tokens is their *value*: the
rank of their merge above the id that they become. So the least is to be merged first.
"""

import functools
from collections.abc import Callable

import numpy as np

from edgeqwen.simd.compile import INT, inline_kernel, kernel
from edgeqwen.simd.ops import peek_i32, peek_i64, peek_u8, poke_i32, poke_i64
from edgeqwen.text.index_kernels import LOW, index_merges, index_tokens, merge_slot

# The value of two tokens that no merge joins: higher than any rank.
NO_MERGE = 1 << 62
# Up to so many bytes, all pairs of a word are looked at for every merge; beyond, a heap sorts them.
SHORT = 48
# How many int64 numbers the longest word needs for each of its bytes.
WORK = 5


@inline_kernel
def _value(left, right, merges, bits, key):  # type: ignore[no-untyped-def]
    """Returns the value of two tokens, whose ids are at the addresses ``left`` and ``right``."""
    pair = (np.int64(peek_i32(left)) << 32) | np.int64(peek_i32(right))
    slot = merge_slot(pair, bits, key)
    while True:
        found = peek_i64(merges + 16 * slot)
        if found == pair + 1:
            return peek_i64(merges + 16 * slot + 8)
        if found == 0:
            return NO_MERGE
        slot = (slot + 1) & ((1 << bits) - 1)


@inline_kernel
def _merge_short(ids, n, merges, bits, key, values):  # type: ignore[no-untyped-def]
    """Merges n tokens in place, looking at all pairs each time; returns how many are left."""
    for i in range(n - 1):
        poke_i64(values + 8 * i, _value(ids + 4 * i, ids + 4 * i + 4, merges, bits, key))
    while n > 1:
        least = NO_MERGE
        at = 0
        for i in range(n - 1):
            value = peek_i64(values + 8 * i)
            if value < least:
                least = value
                at = i
        if least == NO_MERGE:
            break
        poke_i32(ids + 4 * at, np.int32(least & LOW))
        n -= 1
        for i in range(at + 1, n):
            poke_i32(ids + 4 * i, peek_i32(ids + 4 * i + 4))
            poke_i64(values + 8 * i, peek_i64(values + 8 * i + 8))
        for i in range(max(at - 1, 0), min(at + 1, n - 1)):
            poke_i64(values + 8 * i, _value(ids + 4 * i, ids + 4 * i + 4, merges, bits, key))
    return n


@inline_kernel
def _push(heap, n, entry):  # type: ignore[no-untyped-def]
    """Adds an entry to a heap of n, whose least is at its root."""
    i = n
    while i > 0 and peek_i64(heap + 8 * ((i - 1) // 2)) > entry:
        poke_i64(heap + 8 * i, peek_i64(heap + 8 * ((i - 1) // 2)))
        i = (i - 1) // 2
    poke_i64(heap + 8 * i, entry)


@inline_kernel
def _pop(heap, n):  # type: ignore[no-untyped-def]
    """Takes the least out of a heap of n and returns it; n - 1 are left."""
    least = peek_i64(heap)
    last = peek_i64(heap + 8 * (n - 1))
    i = 0
    child = 1
    while child < n - 1:
        if child + 1 < n - 1 and peek_i64(heap + 8 * child + 8) < peek_i64(heap + 8 * child):
            child += 1
        if peek_i64(heap + 8 * child) >= last:
            break
        poke_i64(heap + 8 * i, peek_i64(heap + 8 * child))
        i = child
        child = 2 * i + 1
    poke_i64(heap + 8 * i, last)
    return least


@inline_kernel
def _look(ids, n, at, merges, bits, key, work, n_heap):  # type: ignore[no-untyped-def]
    """Finds the value of the token at a place and the next; returns how many the heap has then."""
    after = peek_i64(work + 8 * (n + at))
    value = NO_MERGE
    if after < n:
        value = _value(ids + 4 * at, ids + 4 * after, merges, bits, key)
    poke_i64(work + 8 * at, value)
    if value == NO_MERGE:
        return n_heap
    _push(work + 24 * n, n_heap, (value & ~LOW) | at)
    return n_heap + 1


@inline_kernel
def _merge_long(ids, n, merges, bits, key, work):  # type: ignore[no-untyped-def]
    """Merges n tokens in place, in n log n steps; returns how many are left.

    A token's place is that of its first byte. ``work`` holds for every place the value of its token
    and the next, where the next is, where the one before is; and then a heap of ranks and places.
    An entry is out of date if the rank at its place is another: one of the two was merged since.
    """
    after = work + 8 * n
    before = work + 16 * n
    # Each merge takes one entry and adds two, n - 1 times at most, upon n - 1 at the beginning.
    heap = work + 24 * n
    n_heap = 0
    for i in range(n):
        poke_i64(after + 8 * i, i + 1)
        poke_i64(before + 8 * i, i - 1)
        n_heap = _look(ids, n, i, merges, bits, key, work, n_heap)
    while n_heap > 0:
        entry = _pop(heap, n_heap)
        n_heap -= 1
        at = entry & LOW
        value = peek_i64(work + 8 * at)
        if value >> 32 != entry >> 32:
            continue
        poke_i32(ids + 4 * at, np.int32(value & LOW))
        gone = peek_i64(after + 8 * at)
        poke_i64(work + 8 * gone, NO_MERGE)
        right = peek_i64(after + 8 * gone)
        poke_i64(after + 8 * at, right)
        if right < n:
            poke_i64(before + 8 * right, at)
        for place in (at, peek_i64(before + 8 * at)):
            if place >= 0:
                n_heap = _look(ids, n, place, merges, bits, key, work, n_heap)
    count = 0
    i = 0
    while i < n:
        poke_i32(ids + 4 * count, peek_i32(ids + 4 * i))
        count += 1
        i = peek_i64(after + 8 * i)
    return count


@kernel
def merge_words(text, ends, n_words, byte_ids, merges, bits, key, ids, work):  # type: ignore[no-untyped-def]
    """Writes the tokens of all words of a text, one word's after the other's; returns how many.

    ``text``: bytes; one byte between words belongs to none. ``ends``: int64 [n_words], where in the
    text each word ends. ``byte_ids``: int32 [256], the token of each byte. ``ids``: room for as
    many int32 as the text has bytes. ``work``: room for ``WORK`` int64 for each byte of the longest
    word. Of the pairs with a merge, the one with the lowest rank is merged, of equals the leftmost,
    and so on until there are none.
    """
    count = 0
    start = 0
    for word in range(n_words):
        end = peek_i64(ends + 8 * word)
        n = end - start
        here = ids + 4 * count
        for i in range(n):
            byte = np.int64(peek_u8(text + start + i))
            poke_i32(here + 4 * i, peek_i32(byte_ids + 4 * byte))
        if n <= SHORT:
            count += _merge_short(here, n, merges, bits, key, work)
        else:
            count += _merge_long(here, n, merges, bits, key, work)
        start = end + 1
    return count


def kernels() -> dict[tuple[str, str], Callable[[], object]]:
    """Returns what a tokenizer compiles: by name, a function that does it."""
    n_arguments = {index_tokens: 6, index_merges: 11, merge_words: 9}
    return {
        ("tokenizer", kernel.__name__): functools.partial(kernel.address, *(INT,) * n)
        for kernel, n in n_arguments.items()
    }
