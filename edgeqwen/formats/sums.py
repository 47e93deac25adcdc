"""Sums of integer products, which are read as float32 without being converted.

They begin with the bits of 1.5 * 2**23 as a float32, whose last place counts ones: as long as less
than 2**22 is added, the bits are those of 1.5 * 2**23 plus the sum, exactly. (The products of a
block, 32 of 8 bits by 8 bits, sum to 2**19 at most.) One fused multiplication by a scale then takes
the 1.5 * 2**23 away again. A scale has 22 bits at most, float16 times a small integer, so that
1.5 * 2**23 times it is exact, and so is the difference, up to the one rounding that sum * scale
would cost. That saves an instruction of three for every sum.
"""

from edgeqwen.simd.emitter import Emitter, Value

SUM_START_F32 = 1.5 * 2.0**23
SUM_START = 0x4B400000
"""The same bits as an int32."""


def start_of_sums(e: Emitter) -> Value:
    """Emits what sums begin with, <lanes x i32>."""
    return e.constant(SUM_START, e.i32v)


def shift_of_scale(e: Emitter, scale: Value) -> Value:
    """Emits what ``scaled`` needs beside the scale: -1.5 * 2**23 times it."""
    return e.b.fmul(scale, e.f32(-SUM_START_F32))


def scaled(e: Emitter, sum_: Value, scale: Value, shift: Value) -> Value:
    """Emits a sum times its scale; ``sum_`` is <lanes x i32> and began with ``SUM_START``."""
    return e.fma(e.b.bitcast(sum_, e.f32v), scale, shift)
