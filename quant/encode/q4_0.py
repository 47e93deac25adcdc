"""Encodes float32 weights as Q4_0: blocks of 32 codes of 4 bits with a float16 scale.

The layout is uint16 d (bits of float16), then 16 bytes, of which byte j holds code j in its low
and code j + 16 in its high half. A weight is d * (code - 8), and d puts the weight with the
largest magnitude at code 0. Bit for bit what ``gguf.quants`` writes.
Three passes over a chunk that stays in the cache: each is a plain loop that LLVM vectorises.
"""

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.encode.exact import (
    HALF_INFINITY_BITS,
    INFINITY_BITS,
    SIGN_BIT,
    bits_of,
    float_of,
    half_bits_of,
    magnitude_of,
)
from edgeqwen.simd.compile import exact_array_kernel

_BLOCK = 32


def encode_q4_0(weights: npt.NDArray[np.float32], out: npt.NDArray[np.uint16]) -> bool:
    """float32 [n] -> uint16 [n / 32 * 9]. Returns False if a scale overflows float16."""
    extremes, inverses, offsets = np.empty((3, weights.size // _BLOCK), np.float32)
    _extremes_of_blocks(weights, _BLOCK, extremes)
    sound = _write_scales(extremes, inverses, offsets, _BLOCK // 4 + 1, out)
    codes = np.empty(_BLOCK, np.uint8)
    _write_codes(weights, _BLOCK, inverses, offsets, codes, codes.view(np.uint16), out)
    return bool(sound)


@exact_array_kernel
def _extremes_of_blocks(x, size, extremes):  # type: ignore[no-untyped-def]
    """The weight with the largest magnitude of each block, the first of several."""
    for block in range(extremes.size):
        first = block * size
        positive = SIGN_BIT
        negative = SIGN_BIT
        for i in range(size):
            bits = bits_of(x[first + i])
            positive = max(positive, bits)
            negative = max(negative, np.int32(bits ^ SIGN_BIT))
        if positive > negative:
            extremes[block] = float_of(positive)
        elif negative > positive:
            extremes[block] = float_of(negative ^ SIGN_BIT)
        else:
            # Both signs reach it: the one that comes first decides.
            while magnitude_of(x[first]) != positive:
                first += 1
            extremes[block] = x[first]


@exact_array_kernel
def _write_scales(extremes, inverses, offsets, stride, out):  # type: ignore[no-untyped-def]
    """Stores each block's d; code = min(15, trunc(weight * inverse + offset))."""
    highest = np.int32(0)
    for block in range(extremes.size):
        d = extremes[block] / np.float32(-8)
        inverse = np.float32(1) / d
        offset = np.float32(8.5)
        if magnitude_of(inverse) >= INFINITY_BITS:
            inverse = np.float32(0)
            # Weights so small that the inverse overflows, though d isn't 0 before it becomes
            # float16: the reference's codes are then casts of infinities, 0 on x86.
            if d != 0:
                offset = np.float32(0)
        inverses[block] = inverse
        offsets[block] = offset
        scale = half_bits_of(d)
        highest = max(highest, np.int32(scale & 0x7FFF))
        out[block * stride] = scale
    return highest < HALF_INFINITY_BITS


@exact_array_kernel
def _write_codes(x, size, inverses, offsets, codes, pairs, out):  # type: ignore[no-untyped-def]
    """Stores each block's codes; ``codes`` and ``pairs`` are the same 32 bytes of scratch."""
    quarter = size // 4
    for block in range(inverses.size):
        first, to = block * size, block * (quarter + 1) + 1
        inverse, offset = inverses[block], offsets[block]
        for i in range(size):
            q = np.int32(x[first + i] * inverse + offset)
            codes[i] = np.uint8(min(q, np.int32(15)))
        for i in range(quarter):
            out[to + i] = pairs[i] | (pairs[quarter + i] << 4)
