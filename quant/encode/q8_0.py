"""Encodes float32 weights as Q8_0: blocks of 32 bytes with a float16 scale, max(abs) / 127.

The layout is uint16 d (bits of float16), then int8 qs[32]. Bit for bit what ``gguf.quants`` writes.
Three passes over a chunk that stays in the cache: each is a plain loop that LLVM vectorises.
"""

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.encode.exact import (
    HALF_INFINITY_BITS,
    INFINITY_BITS,
    float_of,
    half_bits_of,
    magnitude_of,
)
from edgeqwen.simd.compile import exact_array_kernel

_BLOCK = 32


def encode_q8_0(weights: npt.NDArray[np.float32], out: npt.NDArray[np.uint8]) -> bool:
    """float32 [n] -> uint8 [n / 32 * 34]. Returns False if a scale overflows float16."""
    largest, inverses = np.empty((2, weights.size // _BLOCK), np.float32)
    _largest_of_blocks(weights, _BLOCK, largest)
    sound = _write_scales(largest, inverses, _BLOCK + 2, out)
    _write_codes(weights, _BLOCK, inverses, out)
    return bool(sound)


@exact_array_kernel
def _largest_of_blocks(x, size, largest):  # type: ignore[no-untyped-def]
    """The largest magnitude of each block."""
    for block in range(largest.size):
        first = block * size
        found = np.int32(0)
        for i in range(size):
            found = max(found, magnitude_of(x[first + i]))
        largest[block] = float_of(found)


@exact_array_kernel
def _write_scales(largest, inverses, stride, out):  # type: ignore[no-untyped-def]
    """Stores each block's d; ``inverses`` gets 1 / d."""
    highest = np.int32(0)
    for block in range(largest.size):
        d = largest[block] / np.float32(127)
        inverse = np.float32(1) / d
        # No weight at all, or ones so small that the inverse overflows: d is 0 in float16, too.
        inverses[block] = np.float32(0) if magnitude_of(inverse) >= INFINITY_BITS else inverse
        scale = half_bits_of(d)
        highest = max(highest, scale)
        out[block * stride] = np.uint8(scale)
        out[block * stride + 1] = np.uint8(scale >> 8)
    return highest < HALF_INFINITY_BITS


@exact_array_kernel
def _write_codes(x, size, inverses, out):  # type: ignore[no-untyped-def]
    """Stores each block's qs: weight / d, rounded to nearest, halves away from zero."""
    for block in range(inverses.size):
        first, to = block * size, block * (size + 2) + 2
        inverse = inverses[block]
        for i in range(size):
            # Adding 0.5 and truncating would round 0.49999997 up.
            scaled = x[first + i] * inverse
            q = np.int32(scaled)
            rest = scaled - np.float32(q)
            up, down = rest >= np.float32(0.5), rest <= np.float32(-0.5)
            out[to + i] = np.uint8(q + np.int32(up) - np.int32(down))
