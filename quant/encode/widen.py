"""Widens float16 and bfloat16 weights, given as their bits, to float32."""

import numpy as np

from edgeqwen.quant.encode.exact import (
    INFINITY_BITS,
    bits_of,
    float_of,
)
from edgeqwen.simd.compile import exact_array_kernel


@exact_array_kernel
def widen_bf16(source, out):  # type: ignore[no-untyped-def]
    """uint16 [n] -> uint32 [n], the bits of the same numbers as float32."""
    for i in range(source.size):
        out[i] = np.uint32(source[i]) << 16


@exact_array_kernel
def widen_f16(source, out):  # type: ignore[no-untyped-def]
    """uint16 [n] -> uint32 [n], the bits of the same numbers as float32."""
    for i in range(source.size):
        magnitude = np.int32(np.int32(source[i] & 0x7FFF) << 13)
        # Moving the exponent by a multiplication makes denormals right, too.
        bits = bits_of(float_of(magnitude) * np.float32(2.0**112))
        if magnitude >= np.int32(0x7C00 << 13):
            bits = np.int32(magnitude | INFINITY_BITS)
        out[i] = np.uint32(bits | np.int32(np.int32(source[i] & 0x8000) << 16))
