"""Small kernels around the vector operations: each stores what an operation makes of its input."""

import numpy as np

from edgeqwen.simd.compile import array_kernel, kernel
from edgeqwen.simd.ops import (
    absolute,
    divide,
    exp,
    exp2,
    f32_from_bits,
    fma,
    lanes,
    load_f16,
    load_f32,
    load_f32_splat,
    load_i32,
    mask_tail,
    max_lanes,
    maximum,
    peek_f32,
    peek_i16,
    peek_i32,
    peek_i64,
    poke_f32,
    poke_i16,
    poke_i32,
    poke_i64,
    round_to_i32,
    scatter,
    scatter_as_bf16,
    scatter_as_f16,
    splat_f32,
    square_root,
    store,
    store_as_bf16,
    store_as_f16,
    store_as_i8,
    sum_lanes,
    zeros_f32,
)


@kernel
def arithmetic(isa, x, y, z, out, n):  # type: ignore[no-untyped-def]
    """x, y, z: float32 [n]; out: float32 [8][n]."""
    for i in range(0, 4 * n, 4 * lanes(isa)):
        a, b, c = load_f32(isa, x + i), load_f32(isa, y + i), load_f32(isa, z + i)
        store(out + i, a + b)
        store(out + 4 * n + i, a - b)
        store(out + 8 * n + i, a * b)
        store(out + 12 * n + i, divide(a, b))
        store(out + 16 * n + i, fma(a, b, c))
        store(out + 20 * n + i, maximum(a, b))
        store(out + 24 * n + i, absolute(a))
        store(out + 28 * n + i, a * b + c)


@kernel
def integers(isa, x, a, b, out, bytes_out, n):  # type: ignore[no-untyped-def]
    """x: float32 [n]; a, b: int32 [n]; out: int32 [4][n]; bytes_out: int8 [n]."""
    for i in range(0, n, lanes(isa)):
        store(out + 4 * i, round_to_i32(load_f32(isa, x + 4 * i)))
        left, right = load_i32(isa, a + 4 * i), load_i32(isa, b + 4 * i)
        store(out + 4 * (n + i), left + right)
        store(out + 4 * (2 * n + i), left - right)
        store(out + 4 * (3 * n + i), left * right)
        store_as_i8(bytes_out + i, left)


@kernel
def reductions(isa, x, a, out):  # type: ignore[no-untyped-def]
    """x: float32 [lanes]; a: int32 [lanes]; out: sum and largest of x, then the sum of a."""
    poke_f32(out, sum_lanes(load_f32(isa, x)))
    poke_f32(out + 4, max_lanes(load_f32(isa, x)))
    poke_i32(out + 8, sum_lanes(load_i32(isa, a)))


@array_kernel
def masked(isa, x, count, out):  # type: ignore[no-untyped-def]
    store(out, mask_tail(load_f32(isa, x), np.int32(count), np.float32(-7.5)))


@kernel
def splats(isa, x, out):  # type: ignore[no-untyped-def]
    """out: float32 [3][lanes]: the first of x, a constant, zeros."""
    store(out, load_f32_splat(isa, x))
    store(out + 4 * lanes(isa), splat_f32(isa, np.float32(2.5)))
    store(out + 8 * lanes(isa), zeros_f32(isa))


@kernel
def scattered(isa, x, out, stride, out_f16, stride_f16, out_bf16, stride_bf16):  # type: ignore[no-untyped-def]
    scatter(out, stride, load_f32(isa, x))
    scatter_as_f16(out_f16, stride_f16, load_f32(isa, x))
    scatter_as_bf16(out_bf16, stride_bf16, load_f32(isa, x))


@array_kernel
def n_lanes(isa):  # type: ignore[no-untyped-def]
    return lanes(isa)


@kernel
def moved(source, target):  # type: ignore[no-untyped-def]
    """Copies a float32, an int16, an int32 and an int64 that stand side by side."""
    poke_f32(target, peek_f32(source))
    poke_i16(target + 4, peek_i16(source + 4))
    poke_i32(target + 6, peek_i32(source + 6))
    poke_i64(target + 10, peek_i64(source + 10))


@array_kernel
def scalars(bits, x):  # type: ignore[no-untyped-def]
    return f32_from_bits(bits), square_root(np.float32(x))


@kernel
def widened(isa, halves, out, n):  # type: ignore[no-untyped-def]
    for i in range(0, n, lanes(isa)):
        store(out + 4 * i, load_f16(isa, halves + 2 * i))


@kernel
def narrowed(isa, x, halves, n):  # type: ignore[no-untyped-def]
    for i in range(0, n, lanes(isa)):
        store_as_f16(halves + 2 * i, load_f32(isa, x + 4 * i))


@kernel
def narrowed_to_bf16(isa, x, halves, n):  # type: ignore[no-untyped-def]
    for i in range(0, n, lanes(isa)):
        store_as_bf16(halves + 2 * i, load_f32(isa, x + 4 * i))


@kernel
def exponentials(isa, x, out, out_base_2, n):  # type: ignore[no-untyped-def]
    for i in range(0, 4 * n, 4 * lanes(isa)):
        store(out + i, exp(load_f32(isa, x + i)))
        store(out_base_2 + i, exp2(load_f32(isa, x + i)))


@array_kernel
def is_nan(x):  # type: ignore[no-untyped-def]
    """Only right if the compiler may not assume that there is no NaN."""
    return np.isnan(x), x != x
