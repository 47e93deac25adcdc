"""Attention over a range of positions with online softmax: the part that all steps share."""

from typing import Any

import numpy as np

from edgeqwen.kernels.attention_types import (
    ELEMENT_BYTES,
    SEGMENT,
    STREAM,
    AttentionShape,
    load_cached,
)
from edgeqwen.simd.compile import inline_kernel, operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.ops import (
    constant,
    exp2,
    isa_of,
    lanes,
    load_f32,
    mask_tail,
    max_lanes,
    maximum,
    peek_f32,
    peek_i32,
    peek_i64,
    poke_f32,
    splat_f32,
    store,
    sum_lanes,
    zeros_f32,
)

BLOCK = 128
"""Positions whose scores are held at once."""
SCORES_STRIDE = 4 * (BLOCK + 16)  # not a power of two, which would put all rows into one cache set
# Finite, so that a row whose scores are all masked doesn't become NaN; and so far apart that what
# is masked has no weight even where all that is seen lies below LOWEST.
LOWEST, MASKED = np.float32(-1e30), np.float32(-3e38)


head_dim = constant(lambda t: t.value.head_dim)
group = constant(lambda t: t.value.group)
tokens_per_chunk = constant(lambda t: t.value.tokens)
n_rows = constant(lambda t: t.value.padded_rows)
micro_rows = constant(lambda t: t.value.rows)
micro_columns = constant(lambda t: t.value.vectors * t.value.isa.lanes)
element_bytes = constant(lambda t: ELEMENT_BYTES[t.value.cache_type])


def _products_type(shape: AttentionShape) -> Any:
    vector = types.VectorType("f32", shape.isa.lanes, shape.isa)
    return types.UniTuple(vector, shape.rows * shape.vectors)


@operation
def _zeros(typing_context, attention):  # type: ignore[no-untyped-def]
    type_ = _products_type(attention.value)

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return Emitter(builder, attention.value.isa).zero(context.get_value_type(type_))

    return type_(attention), codegen


@operation
def _load_products(typing_context, attention, out, stride):  # type: ignore[no-untyped-def]
    type_, s = _products_type(attention.value), attention.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, s.isa)
        products = e.zero(context.get_value_type(type_))
        for row in range(s.rows):
            base = builder.add(values[1], builder.mul(values[2], e.i64(row)))
            for c in range(s.vectors):
                loaded = e.load(e.f32v, base, 4 * c * s.isa.lanes)
                products = builder.insert_value(products, loaded, row * s.vectors + c)
        return products

    return type_(attention, types.int64, types.int64), codegen


@operation
def _store_products(typing_context, attention, products, out, stride):  # type: ignore[no-untyped-def]
    s = attention.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, s.isa)
        for row in range(s.rows):
            base = builder.add(values[2], builder.mul(values[3], e.i64(row)))
            for c in range(s.vectors):
                value = builder.extract_value(values[1], row * s.vectors + c)
                e.store(value, base, 4 * c * s.isa.lanes)
        return context.get_dummy_value()

    return types.void(attention, products, types.int64, types.int64), codegen


@operation
def _step(typing_context, attention, products, left, left_stride, stream):  # type: ignore[no-untyped-def]
    """products[row][column] += left[row] * stream[column], for one step of the sum."""
    s = attention.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, products, left, left_stride, stream = values
        e = Emitter(builder, s.isa)
        size = ELEMENT_BYTES[s.cache_type] * s.isa.lanes
        columns = [load_cached(e, s.cache_type, stream, c * size) for c in range(s.vectors)]
        for row in range(s.rows):
            factor = e.load_f32_splat(builder.add(left, builder.mul(left_stride, e.i64(row))))
            for c, column in enumerate(columns):
                i = row * s.vectors + c
                product = e.fma(factor, column, builder.extract_value(products, i))
                products = builder.insert_value(products, product, i)
        return products

    i = types.int64
    return products(attention, products, i, i, i), codegen


@inline_kernel
def _multiply(attention, left, left_stride, stream, n_steps, out, out_stride, add):  # type: ignore[no-untyped-def]
    """out[row][32 columns] (+)= sum over steps of left[row][step] * stream[step][32 columns]."""
    for first in range(0, n_rows(attention), micro_rows(attention)):
        for column in range(0, STREAM, micro_columns(attention)):
            place = out + first * out_stride + 4 * column
            products = _load_products(attention, place, out_stride) if add else _zeros(attention)
            a = left + first * left_stride
            b = stream + column * element_bytes(attention)
            for _ in range(n_steps):
                products = _step(attention, products, a, left_stride, b)
                a += 4
                b += STREAM * element_bytes(attention)
            _store_products(attention, products, place, out_stride)


@inline_kernel
def attend(  # type: ignore[no-untyped-def]
    attention, q, segments, offset, v_offset, first, end, limits, largest, sums, out, scores
):
    """Attends to positions [first, end); ``first`` is a multiple of 128.

    q float32 [rows][head_dim], times log2(e) / sqrt(head_dim); segments, offset, v_offset: where
    the KV head's keys and values are, as in ATTENTION; limits int32 [rows]: a row sees positions
    below its limit. Results, not normalised: largest [rows] (of the scores, base 2), sums [rows],
    out [rows][head_dim], all float32. scores: float32 scratch [rows][SCORES_STRIDE / 4].
    """
    isa = isa_of(attention)
    width = 4 * head_dim(attention)
    tile_bytes = STREAM * element_bytes(attention)  # of one K dimension or one V position
    for r in range(n_rows(attention)):
        poke_f32(largest + 4 * r, LOWEST)
        poke_f32(sums + 4 * r, np.float32(0))
        for i in range(0, width, 4 * lanes(isa)):
            store(out + r * width + i, zeros_f32(isa))
    position = first
    while position < end:
        n = min(BLOCK, end - position)
        # A block never goes beyond its segment.
        k = peek_i64(segments + 8 * (position // SEGMENT)) + offset
        v = k + v_offset
        inside = position % SEGMENT
        padded = (n + STREAM - 1) // STREAM * STREAM
        for t in range(padded // STREAM):
            tile = k + (inside // STREAM + t) * head_dim(attention) * tile_bytes
            _multiply(
                attention,
                q,
                width,
                tile,
                head_dim(attention),
                scores + 128 * t,
                SCORES_STRIDE,
                False,
            )
        for r in range(n_rows(attention)):
            row = scores + r * SCORES_STRIDE
            visible = min(np.int64(peek_i32(limits + 4 * r)), end) - position
            if visible < padded:
                start = max(visible, 0) // lanes(isa) * lanes(isa)
                for i in range(start, padded, lanes(isa)):
                    s = load_f32(isa, row + 4 * i)
                    store(row + 4 * i, mask_tail(s, np.int32(visible - i), MASKED))
            top = splat_f32(isa, MASKED)
            for i in range(0, padded, lanes(isa)):
                top = maximum(top, load_f32(isa, row + 4 * i))
            before, now = peek_f32(largest + 4 * r), max_lanes(top)
            if now > before:
                # What was summed so far is scaled to the new maximum.
                factor = exp2(splat_f32(isa, before - now))
                poke_f32(largest + 4 * r, now)
                poke_f32(sums + 4 * r, peek_f32(sums + 4 * r) * max_lanes(factor))
                for i in range(0, width, 4 * lanes(isa)):
                    store(out + r * width + i, factor * load_f32(isa, out + r * width + i))
            else:
                now = before
            shift, total = splat_f32(isa, now), zeros_f32(isa)
            for i in range(0, padded, lanes(isa)):
                weight = exp2(load_f32(isa, row + 4 * i) - shift)
                store(row + 4 * i, weight)
                total = total + weight
            poke_f32(sums + 4 * r, peek_f32(sums + 4 * r) + sum_lanes(total))
        for t in range((n + 63) // 64):
            for c in range(head_dim(attention) // STREAM):
                tile = (inside // 64 + t) * (head_dim(attention) // STREAM) + c
                _multiply(
                    attention,
                    scores + 256 * t,
                    SCORES_STRIDE,
                    v + tile * 64 * tile_bytes,
                    min(64, n - 64 * t),
                    out + 128 * c,
                    width,
                    True,
                )
        position += n
