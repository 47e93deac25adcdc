"""Exact kernels, which round as the reference does, and the bit operations that encoders share.

The bytes of a GGUF block are a convention: the reference rounds after every operation. Kernels of
``edgeqwen.simd`` may reassociate and fuse, which changes a code in every few million weights, so
the ones here are compiled without those liberties. Loops get their length as an argument: LLVM
unrolls loops of known length into scalar code before it comes to vectorising them.
"""

import numpy as np

from edgeqwen.simd.compile import inline_kernel

INFINITY_BITS = np.int32(0x7F800000)
SIGN_BIT = np.int32(-(2**31))
HALF_INFINITY_BITS = np.int32(0x7C00)


@inline_kernel
def bits_of(x):  # type: ignore[no-untyped-def]
    """The bits of a float32 as int32."""
    return np.float32(x).view(np.int32)


@inline_kernel
def float_of(bits):  # type: ignore[no-untyped-def]
    """The float32 that has these 32 bits."""
    return np.int32(bits).view(np.float32)


@inline_kernel
def magnitude_of(x):  # type: ignore[no-untyped-def]
    """The bits of abs(x) as int32: they order as the magnitudes do, infinity and NaN on top."""
    return np.int32(bits_of(x) & 0x7FFFFFFF)


@inline_kernel
def half_bits_of(x):  # type: ignore[no-untyped-def]
    """The bits of x rounded to float16 (nearest even) as int32; NaN is one NaN."""
    magnitude = magnitude_of(x)
    sign = np.int32((bits_of(x) >> 16) & 0x8000)
    # Below 2**-14, adding 0.5 leaves the float16 denormal, rounded, in the mantissa's low end.
    denormal = np.int32(bits_of(float_of(magnitude) + np.float32(0.5)) - 0x3F000000)
    upper = np.int32(magnitude >> 13)
    odd = np.int32(upper & 1)
    normal = np.int32(np.int32(magnitude + (0xFFF - (112 << 23)) + odd) >> 13)
    half = denormal if magnitude < np.int32(113 << 23) else normal
    half = HALF_INFINITY_BITS if magnitude >= np.int32(143 << 23) else half
    half = np.int32(0x7E00) if magnitude > INFINITY_BITS else half
    return np.int32(half | sign)
