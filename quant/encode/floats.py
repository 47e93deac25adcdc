"""Encodes float32 weights as F32, F16 and BF16, and says whether every result is finite."""

import numpy as np

from edgeqwen.quant.encode.exact import (
    HALF_INFINITY_BITS,
    INFINITY_BITS,
    bits_of,
    half_bits_of,
    magnitude_of,
)
from edgeqwen.simd.compile import exact_array_kernel

_BF16_INFINITY_BITS = np.int32(0x7F80)


@exact_array_kernel
def encode_f32(x, out):  # type: ignore[no-untyped-def]
    """float32 [n] -> uint32 [n], the bits."""
    largest = np.int32(0)
    for i in range(x.size):
        largest = max(largest, magnitude_of(x[i]))
        out[i] = bits_of(x[i])
    return largest < INFINITY_BITS


@exact_array_kernel
def encode_f16(x, out):  # type: ignore[no-untyped-def]
    """float32 [n] -> uint16 [n], the bits rounded to nearest even; too large is infinity."""
    largest = np.int32(0)
    for i in range(x.size):
        half = half_bits_of(x[i])
        largest = max(largest, np.int32(half & 0x7FFF))
        out[i] = half
    return largest < HALF_INFINITY_BITS


@exact_array_kernel
def encode_bf16(x, out):  # type: ignore[no-untyped-def]
    """float32 [n] -> uint16 [n], the bits rounded to nearest even; NaN stays NaN, quiet."""
    largest = np.int32(0)
    for i in range(x.size):
        bits = bits_of(x[i])
        upper = np.int32(bits >> 16)
        odd = np.int32(upper & 1)
        rounded = np.int32(np.int32(bits + 0x7FFF + odd) >> 16)
        quiet = np.int32(upper | 0x40)
        rounded = quiet if magnitude_of(x[i]) > INFINITY_BITS else rounded
        largest = max(largest, np.int32(rounded & 0x7FFF))
        out[i] = rounded
    return largest < _BF16_INFINITY_BITS
