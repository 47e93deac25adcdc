"""A token's key and value in the KV cache: how they enter it, rotated, and how they are read."""

from typing import Any

from edgeqwen.kernels.attention_products import (
    head_dim,
    keeps_biases_apart,
    key_block_bytes,
    key_row_bytes,
    row_bytes,
    scale_bytes,
    value_block_bytes,
)
from edgeqwen.kernels.attention_types import SEGMENT, STREAM
from edgeqwen.kernels.cache_types import gather_elements, packed, quantize
from edgeqwen.simd.compile import inline_kernel, operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.llvm_ir import ir
from edgeqwen.simd.ops import (
    constant,
    isa_of,
    lanes,
    load_f32,
    peek_i64,
    scatter,
    scatter_as_bf16,
    scatter_as_f16,
    store,
    store_as_bf16,
    store_as_f16,
)

_is_bf16 = constant(lambda t: int(t.value.cache_type == "bf16"))


@inline_kernel
def rotate(isa, x, y, cosines, sines):  # type: ignore[no-untyped-def]
    """Rotates vectors of the two halves of a head, x and y, against each other."""
    cosine, sine = load_f32(isa, cosines), load_f32(isa, sines)
    return x * cosine - y * sine, y * cosine + x * sine


@inline_kernel
def cache_token(attention, k, v, angles, position, cache):  # type: ignore[no-untyped-def]
    """Puts the key, rotated, and the value of one token and KV head into the cache.

    k, v: float32 [head_dim]; cache: as ``attend`` takes it; biases of 0: the key has none.
    """
    biases = cache[5]
    isa = isa_of(attention)
    size = head_dim(attention)
    keys, values = _places(attention, position, cache)
    turned = _frame_memory(attention)
    for i in range(0, 2 * size, 4 * lanes(isa)):
        x, y = load_f32(isa, k + i), load_f32(isa, k + 2 * size + i)
        if keeps_biases_apart(attention) and biases != 0:
            x, y = x - load_f32(isa, biases + i), y - load_f32(isa, biases + 2 * size + i)
        left, right = rotate(isa, x, y, angles + i, angles + 2 * size + i)
        store(turned + i, left)
        store(turned + 2 * size + i, right)
    for block in range(size // STREAM):
        _cache_key(attention, turned + 128 * block, keys, position % STREAM)
        _cache_value(attention, v + 128 * block, values, position % 64)
        keys += key_block_bytes(attention)
        values += value_block_bytes(attention)


@inline_kernel
def read_token(attention, position, cache, k, v):  # type: ignore[no-untyped-def]
    """Reads the key and the value of one token and KV head: ``cache_token`` without a rotation.

    k, v: where they go, float32 [head_dim]. What is kept apart of the key isn't in it.
    """
    keys, values = _places(attention, position, cache)
    column, row = position % STREAM, position % 64
    step = key_row_bytes(attention)
    for i in range(0, 4 * head_dim(attention), 4 * STREAM):
        place = keys + STREAM * scale_bytes(attention) + column * step // STREAM
        _read_key(attention, keys + column * scale_bytes(attention), place, k + i)
        place = values + 64 * scale_bytes(attention) + row * row_bytes(attention)
        _read_value(attention, values + row * scale_bytes(attention), place, v + i)
        keys += key_block_bytes(attention)
        values += value_block_bytes(attention)


@inline_kernel
def _places(attention, position, cache):  # type: ignore[no-untyped-def]
    """Where the first blocks of K and V are that hold a position."""
    segments, _, offset, v_offset, _, _ = cache
    blocks = head_dim(attention) // STREAM
    keys = peek_i64(segments + 8 * (position // SEGMENT)) + offset
    position %= SEGMENT
    values = keys + v_offset + position // 64 * blocks * value_block_bytes(attention)
    return keys + position // STREAM * blocks * key_block_bytes(attention), values


@inline_kernel
def _cache_key(attention, x, block, column):  # type: ignore[no-untyped-def]
    """Puts 32 dimensions of a key, float32, into a column of a block of K."""
    isa = isa_of(attention)
    step = key_row_bytes(attention)
    place = block + STREAM * scale_bytes(attention) + column * step // STREAM
    if scale_bytes(attention):
        _quantize_key(attention, x, block + column * scale_bytes(attention), place)
    else:
        for i in range(0, STREAM, lanes(isa)):
            value = load_f32(isa, x + 4 * i)
            if row_bytes(attention) == 128:
                scatter(place + i * step, step, value)
            elif _is_bf16(attention):
                scatter_as_bf16(place + i * step, step, value)
            else:
                scatter_as_f16(place + i * step, step, value)


@inline_kernel
def _cache_value(attention, x, block, row):  # type: ignore[no-untyped-def]
    """Puts 32 dimensions of a value, float32, into a row of a block of V."""
    isa = isa_of(attention)
    place = block + 64 * scale_bytes(attention) + row * row_bytes(attention)
    if scale_bytes(attention):
        _quantize_value(attention, x, block + row * scale_bytes(attention), place)
    else:
        for i in range(0, STREAM, lanes(isa)):
            value = load_f32(isa, x + 4 * i)
            if row_bytes(attention) == 128:
                store(place + 4 * i, value)
            elif _is_bf16(attention):
                store_as_bf16(place + 2 * i, value)
            else:
                store_as_f16(place + 2 * i, value)


@operation
def _frame_memory(typing_context, attention):  # type: ignore[no-untyped-def]
    """The address of float32 [head_dim] in the function's own frame."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return Emitter(builder, attention.value.isa).scratch(attention.value.head_dim)

    return types.int64(attention), codegen


def _quantizer(stride: int) -> Any:
    """Makes the operation that stores 32 elements' scale, and their bytes ``stride`` apart."""

    @operation
    def quantize_32(typing_context, attention, x, scale, place):  # type: ignore[no-untyped-def]
        s = attention.value

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            _, x, scale, place = values
            if not s.cache.scale_bytes:  # code of other types, which isn't reached
                return context.get_dummy_value()
            e = Emitter(builder, s.isa)
            for i, part in enumerate(packed(e, s.cache, quantize(e, s.cache, x, scale))):
                first = stride * i * s.isa.lanes
                if stride == 1:
                    e.store(part, place, first)
                    continue
                for lane in range(s.isa.lanes):
                    code = builder.extract_element(part, ir.I32(lane))
                    e.store(code, place, first + stride * lane)
            return context.get_dummy_value()

        i = types.int64
        return types.void(attention, i, i, i), codegen

    return quantize_32


_quantize_key, _quantize_value = _quantizer(STREAM), _quantizer(1)


def _reader(apart: int) -> Any:
    """Makes the operation that reads 32 elements, ``apart`` elements from each other, as float32.

    A byte with two codes counts as one element.
    """

    @operation
    def read_32(typing_context, attention, scale, place, out):  # type: ignore[no-untyped-def]
        s = attention.value

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            _, scale, place, out = values
            e = Emitter(builder, s.isa)
            n, kind = s.isa.lanes, s.cache
            size = max(1, kind.row_bytes // STREAM)
            factor = None
            if kind.scale_bytes:
                bits = e.splat(e.load(ir.I16, scale), e.half_bits)
                factor = e.f16_to_f32(builder.bitcast(bits, e.f16v))
            for i in range(0, STREAM * kind.row_bytes // max(STREAM, kind.row_bytes), n):
                first = e.at(place, i * apart * size)
                for part, x in enumerate(gather_elements(e, s.cache_type, first, apart * size)):
                    x = x if factor is None else builder.fmul(x, factor)
                    e.store(x, out, 4 * (16 * part + i))
            return context.get_dummy_value()

        i = types.int64
        return types.void(attention, i, i, i), codegen

    return read_32


_read_key, _read_value = _reader(STREAM), _reader(1)
