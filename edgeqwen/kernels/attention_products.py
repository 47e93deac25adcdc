"""The micro-kernel of attention: some query heads times a tile of keys, some weights times values.

products[row][column] += left[row] * stream[column], step by step. Elements of quantized types are
codes: their products with keys get the scales of their positions afterwards, for 32 dimensions at
once; values get them ahead, through the weights that they are multiplied by.
"""

from collections.abc import Callable, Sequence
from typing import Any

from edgeqwen.kernels.attention_types import STREAM, AttentionShape
from edgeqwen.kernels.cache_types import half_at, load_bytes, load_row, low_and_high
from edgeqwen.simd.compile import inline_kernel, operation, types
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import constant, isa_of, lanes, load_f16, load_f32, peek_i32, store, zeros

BLOCK = 128
"""Positions whose scores are held at once."""
SCORES_STRIDE = 4 * (BLOCK + 16)  # not a power of two, which would put all rows into one cache set
WEIGHTS_STRIDE = 4 * (64 + 16)

head_dim = constant(lambda t: t.value.head_dim)
group = constant(lambda t: t.value.group)
tokens_per_chunk = constant(lambda t: t.value.tokens)
n_rows = constant(lambda t: t.value.padded_rows)
micro_rows = constant(lambda t: t.value.rows)
micro_columns = constant(lambda t: t.value.vectors * t.value.isa.lanes)

row_bytes = constant(lambda t: t.value.cache.row_bytes)
"""Of 32 elements, without their scales."""
scale_bytes = constant(lambda t: t.value.cache.scale_bytes)
key_row_bytes = constant(lambda t: max(STREAM, t.value.cache.row_bytes))
key_row_dimensions = constant(lambda t: 2 if t.value.cache.row_bytes < STREAM else 1)
"""Dimensions of a row of K: two where a byte holds two codes."""
key_block_bytes = constant(lambda t: 32 * t.value.cache.bytes_of_32)
value_block_bytes = constant(lambda t: 64 * t.value.cache.bytes_of_32)
keeps_biases_apart = constant(lambda t: int(t.value.cache.keeps_biases_apart))


def _products_type(shape: AttentionShape) -> Any:
    vector = types.VectorType("f32", shape.isa.lanes, shape.isa)
    return types.UniTuple(vector, shape.rows * shape.vectors)


_zeros = zeros(_products_type)


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


Columns = Callable[[Emitter, AttentionShape, Value, Value], Sequence[tuple[int, Sequence[Value]]]]


def _stepper(columns: Columns) -> Any:
    """Makes the operation of one row of the stream, which holds the columns of some steps.

    ``columns(e, shape, stream, shift)`` returns of each step how many bytes its factor lies behind
    the first one's, and its vectors.
    """

    @operation
    def step(typing_context, attention, products, left, left_stride, stream, shift):  # type: ignore[no-untyped-def]
        s = attention.value

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            _, products, left, left_stride, stream, shift = values
            e = Emitter(builder, s.isa)
            for offset, vectors in columns(e, s, stream, shift):
                for row in range(s.rows):
                    place = builder.add(left, builder.mul(left_stride, e.i64(row)))
                    factor = e.load_f32_splat(place, offset)
                    for c, vector in enumerate(vectors):
                        i = row * s.vectors + c
                        product = e.fma(factor, vector, builder.extract_value(products, i))
                        products = builder.insert_value(products, product, i)
            return products

        i = types.int64
        return products(attention, products, i, i, i, i), codegen

    return step


def _plain(e: Emitter, s: AttentionShape, stream: Value, cache_type: str) -> list[Value]:
    size = 128 if cache_type == "f32" else s.cache.row_bytes
    return [
        load_row(e, cache_type, stream, c * s.isa.lanes * size // STREAM) for c in range(s.vectors)
    ]


def _key_columns(e: Emitter, s: AttentionShape, stream: Value, shift: Value) -> Any:
    if s.cache.row_bytes >= STREAM:
        return [(0, _plain(e, s, stream, s.cache_type))]
    halves = [low_and_high(e, load_bytes(e, stream, c * s.isa.lanes)) for c in range(s.vectors)]
    return [(0, [low for low, _ in halves]), (4 * 16, [high for _, high in halves])]


def _value_columns(e: Emitter, s: AttentionShape, stream: Value, shift: Value) -> Any:
    if s.cache.row_bytes >= STREAM:
        return [(0, _plain(e, s, stream, s.cache_type))]
    found = []
    for c in range(s.vectors):
        column = c * s.isa.lanes
        here = e.b.add(shift, e.i64(4 * (column // 16)))
        found.append(half_at(e, load_bytes(e, stream, column % 16), here))
    return [(0, found)]


_key_step = _stepper(_key_columns)
_value_step = _stepper(_value_columns)
_float_step = _stepper(lambda e, s, stream, shift: [(0, _plain(e, s, stream, "f32"))])


@operation
def _add_scaled(typing_context, attention, totals, products, scales):  # type: ignore[no-untyped-def]
    """totals[row][column] + products[row][column] * float16 scales[column]."""
    s = attention.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, totals, products, scales = values
        e = Emitter(builder, s.isa)
        for c in range(s.vectors):
            scale = e.f16_to_f32(e.load(e.f16v, scales, 2 * c * s.isa.lanes))
            for i in range(c, s.rows * s.vectors, s.vectors):
                product = builder.extract_value(products, i)
                total = e.fma(product, scale, builder.extract_value(totals, i))
                totals = builder.insert_value(totals, total, i)
        return totals

    return totals(attention, totals, products, types.int64), codegen


@inline_kernel
def multiply_keys(attention, q, tile, n_pairs, pairs, factors, turned, out):  # type: ignore[no-untyped-def]
    """out[row][32 positions] = q[row] times a tile of K, and the biases that were kept apart.

    q float32 [rows][head_dim], out [rows][SCORES_STRIDE / 4]. pairs: int32, of each the place of
    its rotations and its dimension; factors float32 [rows][head_dim]: two of each pair
    (``key_biases`` tells); turned: the rotations of these positions.
    """
    width = 4 * head_dim(attention)
    for first in range(0, n_rows(attention), micro_rows(attention)):
        for column in range(0, STREAM, micro_columns(attention)):
            totals = _zeros(attention)
            if keeps_biases_apart(attention):
                f = factors + first * width
                for pair in range(n_pairs):
                    c = turned + peek_i32(pairs + 8 * pair) + 4 * column
                    totals = _float_step(attention, totals, f, width, c, 0)
                    totals = _float_step(attention, totals, f + 4, width, c + 4 * STREAM, 0)
                    f += 8
            a = q + first * width
            b = tile + column * key_row_bytes(attention) // STREAM
            if scale_bytes(attention):
                for _ in range(head_dim(attention) // 32):
                    scales = b - column + column * scale_bytes(attention)
                    b += STREAM * scale_bytes(attention)
                    products = _zeros(attention)
                    for _ in range(32 // key_row_dimensions(attention)):
                        products = _key_step(attention, products, a, width, b, 0)
                        a += 4
                        b += key_row_bytes(attention)
                    a += 4 * (32 - 32 // key_row_dimensions(attention))
                    totals = _add_scaled(attention, totals, products, scales)
            else:
                for _ in range(head_dim(attention)):
                    totals = _key_step(attention, totals, a, width, b, 0)
                    a += 4
                    b += key_row_bytes(attention)
            place = out + first * SCORES_STRIDE + 4 * column
            _store_products(attention, totals, place, SCORES_STRIDE)


@inline_kernel
def multiply_values(attention, weights, block, n, spare, out):  # type: ignore[no-untyped-def]
    """out[row][32 dimensions] += weights[row] times the first n positions of a block of V.

    weights float32 [rows][SCORES_STRIDE / 4], out [rows][head_dim]; spare: memory for
    [rows][WEIGHTS_STRIDE / 4].
    """
    isa = isa_of(attention)
    width, stride = 4 * head_dim(attention), SCORES_STRIDE
    values = block
    if scale_bytes(attention):
        for i in range(0, 64, lanes(isa)):
            scale = load_f16(isa, block + 2 * i)
            for r in range(n_rows(attention)):
                weight = load_f32(isa, weights + r * SCORES_STRIDE + 4 * i)
                store(spare + r * WEIGHTS_STRIDE + 4 * i, weight * scale)
        weights, stride = spare, WEIGHTS_STRIDE
        values += 64 * scale_bytes(attention)
    for first in range(0, n_rows(attention), micro_rows(attention)):
        for column in range(0, STREAM, micro_columns(attention)):
            place = out + first * width + 4 * column
            products = _load_products(attention, place, width)
            a = weights + first * stride
            if row_bytes(attention) < STREAM:
                b, shift = values + column % 16, column // 16 * 4
            else:
                b, shift = values + column * row_bytes(attention) // STREAM, 0
            for _ in range(n):
                products = _value_step(attention, products, a, stride, b, shift)
                a += 4
                b += row_bytes(attention)
            _store_products(attention, products, place, width)
