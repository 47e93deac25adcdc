"""The one pass over the logits: finds the largest of them and checks that all are numbers."""

import numpy as np

from edgeqwen.simd.compile import inline_kernel, kernel
from edgeqwen.simd.ops import (
    peek_f32,
    peek_f64,
    peek_i32,
    peek_u8,
    poke_f64,
    poke_i32,
)
from edgeqwen.simd.records import record, record_view

# Logits that are looked at together; the largest of them decides whether to look closer.
BLOCK = 64
# Everything is int32 by name: Numba would widen it to 64 bits, and halve the vectors.
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITY = np.int32(0x7F800000)
_LOWEST = np.int32(-0x80000000)
_SIGN_SHIFT = np.int32(31)

LARGEST = record(
    "logits",  # float32 [n_logits]
    "n_logits",
    "skip",  # uint8 [n_logits]: 1 where a logit doesn't count
    "more_values",  # float64 [n_more]: candidates besides the logits
    "more_ids",  # int32 [n_more]
    "n_more",
    "values",  # float64 [k], the result
    "ids",  # int32 [k], the result
    "k",
)
largest_view = record_view(LARGEST)


@inline_kernel
def _insert(value, id, found, values, ids, k):  # type: ignore[no-untyped-def]
    """Puts a candidate in its place among those found so far; the last of k falls out."""
    j = found if found < k else k - 1
    while j > 0:
        before = peek_f64(values + 8 * (j - 1))
        id_before = peek_i32(ids + 4 * (j - 1))
        if not (before < value or (before == value and id_before > id)):
            break
        poke_f64(values + 8 * j, before)
        poke_i32(ids + 4 * j, id_before)
        j -= 1
    poke_f64(values + 8 * j, value)
    poke_i32(ids + 4 * j, id)
    return min(found + 1, k)


@inline_kernel
def _order(bits):  # type: ignore[no-untyped-def]
    """Makes an integer that is ordered as the float32 with these bits is."""
    return np.int32(bits ^ np.int32(np.int32(bits >> _SIGN_SHIFT) & _MAGNITUDE))


@kernel
def largest(args):  # type: ignore[no-untyped-def]
    """Finds the k largest of the logits whose ``skip`` is 0, and of some more values.

    ``args``: address of a LARGEST, whose results are filled in, in the order of the ids; of equal
    values the lower ids are taken. Returns how many were found, or -1 if any logit, skipped ones
    too, is infinite or NaN: then what was filled in means nothing.
    """
    a = largest_view(args)
    logits, skip, values, ids, n, k = a.logits, a.skip, a.values, a.ids, a.n_logits, a.k
    found = 0
    threshold = _LOWEST
    worst = np.int32(0)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        # As integers, so that the compiler uses vectors: with floats it has to mind NaN.
        highest = _LOWEST
        for i in range(start, stop):
            bits = peek_i32(logits + 4 * i)
            magnitude = np.int32(bits & _MAGNITUDE)
            worst = magnitude if magnitude > worst else worst
            order = _order(bits)
            highest = order if order > highest else highest
        if worst >= _INFINITY:
            return -1
        if found == k and highest <= threshold:
            continue
        for i in range(start, stop):
            value = np.float64(peek_f32(logits + 4 * i))
            if peek_u8(skip + i) == 0 and (found < k or value > peek_f64(values + 8 * (k - 1))):
                found = _insert(value, np.int32(i), found, values, ids, k)
        if found == k:
            threshold = _order(peek_i32(logits + 4 * peek_i32(ids + 4 * (k - 1))))
    for i in range(a.n_more):
        value = peek_f64(a.more_values + 8 * i)
        id = peek_i32(a.more_ids + 4 * i)
        last = peek_f64(values + 8 * (k - 1))
        if found < k or value > last or (value == last and id < peek_i32(ids + 4 * (k - 1))):
            found = _insert(value, id, found, values, ids, k)
    _sort_by_id(values, ids, found)
    return found


@inline_kernel
def _sort_by_id(values, ids, n):  # type: ignore[no-untyped-def]
    for i in range(1, n):
        value, id = peek_f64(values + 8 * i), peek_i32(ids + 4 * i)
        j = i
        while j > 0 and peek_i32(ids + 4 * (j - 1)) > id:
            poke_f64(values + 8 * j, peek_f64(values + 8 * (j - 1)))
            poke_i32(ids + 4 * j, peek_i32(ids + 4 * (j - 1)))
            j -= 1
        poke_f64(values + 8 * j, value)
        poke_i32(ids + 4 * j, id)
