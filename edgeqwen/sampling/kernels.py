"""The one pass over the logits: finds the largest of them and checks that all are numbers."""

import numpy as np

from edgeqwen.simd.compile import inline_kernel, kernel

# Logits that are looked at together; the largest of them decides whether to look closer.
BLOCK = 64
# Everything is int32 by name: Numba would widen it to 64 bits, and halve the vectors.
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITY = np.int32(0x7F800000)
_LOWEST = np.int32(-0x80000000)
_SIGN_SHIFT = np.int32(31)


@inline_kernel
def _insert(value, id, found, values, ids):  # type: ignore[no-untyped-def]
    """Puts a candidate in its place among those found so far; the last of k falls out."""
    j = found if found < len(ids) else len(ids) - 1
    while j > 0 and (values[j - 1] < value or (values[j - 1] == value and ids[j - 1] > id)):
        values[j] = values[j - 1]
        ids[j] = ids[j - 1]
        j -= 1
    values[j] = value
    ids[j] = id
    return min(found + 1, len(ids))


@inline_kernel
def _order(bits):  # type: ignore[no-untyped-def]
    """Makes an integer that is ordered as the float32 with these bits is."""
    return np.int32(bits ^ np.int32(np.int32(bits >> _SIGN_SHIFT) & _MAGNITUDE))


@kernel
def largest(logits, bits, skip, more_values, more_ids, values, ids):  # type: ignore[no-untyped-def]
    """Finds the k largest of the logits whose ``skip`` is 0, and of some more values.

    ``logits``: float32 [n]; ``bits``: the same memory as int32; ``skip``: uint8 [n];
    ``more_values``: float64 [m] with ``more_ids``: int32 [m]. ``values``: float64 [k] and ``ids``:
    int32 [k] are filled in, in the order of the ids; of equal values the lower ids are taken.
    Returns how many were found, or -1 if any logit, skipped ones too, is infinite or NaN: then
    what was filled in means nothing.
    """
    n = len(logits)
    k = len(ids)
    found = 0
    threshold = _LOWEST
    worst = np.int32(0)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        # As integers, so that the compiler uses vectors: with floats it has to mind NaN.
        highest = _LOWEST
        for i in range(start, stop):
            magnitude = np.int32(bits[i] & _MAGNITUDE)
            worst = magnitude if magnitude > worst else worst
            order = _order(bits[i])
            highest = order if order > highest else highest
        if worst >= _INFINITY:
            return -1
        if found == k and highest <= threshold:
            continue
        for i in range(start, stop):
            if skip[i] == 0 and (found < k or logits[i] > values[k - 1]):
                found = _insert(np.float64(logits[i]), np.int32(i), found, values, ids)
        if found == k:
            threshold = _order(bits[ids[k - 1]])
    for i in range(len(more_ids)):
        value = more_values[i]
        last = values[k - 1]
        if found < k or value > last or (value == last and more_ids[i] < ids[k - 1]):
            found = _insert(value, more_ids[i], found, values, ids)
    for i in range(1, found):
        value = values[i]
        id = ids[i]
        j = i
        while j > 0 and ids[j - 1] > id:
            values[j] = values[j - 1]
            ids[j] = ids[j - 1]
            j -= 1
        values[j] = value
        ids[j] = id
    return found
