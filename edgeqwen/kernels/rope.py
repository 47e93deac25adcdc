"""Rotary position embedding, and where keys and values enter the KV cache.

The angles of a step are computed once: angle = position * frequency in float32, as the models
were trained, then its cosine and sine in double precision. The two halves of a head rotate
against each other (the NeoX order): x[i], x[i + head_dim / 2].
"""

import math

import numpy as np

from edgeqwen.kernels.attention_core import (
    element_bytes,
    group,
    head_dim,
)
from edgeqwen.kernels.attention_types import SEGMENT, STREAM
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_kernel, inline_kernel
from edgeqwen.simd.ops import (
    f32_from_bits,
    isa_of,
    lanes,
    load_f32,
    peek_f32,
    peek_i64,
    poke_f32,
    scatter,
    scatter_as_f16,
    splat_f32,
    store,
    store_as_f16,
)
from edgeqwen.simd.records import record, record_view

ANGLES = record(
    "state",
    "frequencies",  # float32 [head_dim / 2], radians per position
    "scale",  # the bits of a float32 that cosines and sines are multiplied by (YaRN), else 1
    "angles",  # float32 [n_tokens][head_dim]: cosines, then sines
)
angles_view = record_view(ANGLES)


@exact_kernel
def angles(attention, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Computes the cosines and sines of one token: chunk = token."""
    a = angles_view(args)
    half = head_dim(attention) // 2
    position = np.float32(state_view(a.state).n_past + chunk)
    scale = f32_from_bits(a.scale)
    out = a.angles + 8 * half * chunk
    for i in range(half):
        angle = np.float64(np.float32(position * peek_f32(a.frequencies + 4 * i)))
        poke_f32(out + 4 * i, np.float32(math.cos(angle)) * scale)
        poke_f32(out + 4 * (half + i), np.float32(math.sin(angle)) * scale)


ROPE = record(
    "state",
    "angles",
    "qkv",  # float32 [n_tokens][stride / 4]: query heads, key heads, value heads
    "stride",
    "n_kv_heads",
    "q_scale",  # the bits of a float32: log2(e) / sqrt(head_dim), for a softmax in base 2
    "layer",  # as in ATTENTION
    "head_bytes",
    "v_offset",
)
rope_view = record_view(ROPE)


@exact_kernel
def rope(attention, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Rotates one token's queries in place and its keys into the cache: chunk = token."""
    a = rope_view(args)
    state = state_view(a.state)
    size, heads, n_kv_heads = head_dim(attention), group(attention), a.n_kv_heads
    angles = a.angles + 4 * size * chunk
    q = a.qkv + chunk * a.stride
    k = q + 4 * size * n_kv_heads * heads
    for head in range(n_kv_heads):
        rows = q + 4 * size * heads * head
        rotate_queries(attention, rows, angles, a.q_scale, rows)
        offset = a.layer + head * a.head_bytes
        keys = k + 4 * size * head
        values = keys + 4 * size * n_kv_heads
        cache_token(
            attention,
            keys,
            values,
            angles,
            state.n_past + chunk,
            state.segments,
            offset,
            a.v_offset,
        )


@inline_kernel
def rotate_queries(attention, q, angles, scale_bits, out):  # type: ignore[no-untyped-def]
    """Rotates and scales one token's query heads of one KV head, from ``q`` to ``out``."""
    isa = isa_of(attention)
    size = head_dim(attention)
    scale = splat_f32(isa, f32_from_bits(scale_bits))
    for head in range(group(attention)):
        for i in range(0, size // 2, lanes(isa)):
            at = 4 * (head * size + i)
            x = q + at
            left, right = _rotate(isa, x, x + 2 * size, angles + 4 * i, angles + 2 * size + 4 * i)
            store(out + at, left * scale)
            store(out + at + 2 * size, right * scale)


@inline_kernel
def cache_token(attention, k, v, angles, position, segments, offset, v_offset):  # type: ignore[no-untyped-def]
    """Puts the key, rotated, and the value of one token and KV head into the cache.

    segments, offset, v_offset: where the KV head's keys and values are, as in ATTENTION.
    """
    isa = isa_of(attention)
    size = head_dim(attention)
    cached_k = peek_i64(segments + 8 * (position // SEGMENT)) + offset
    cached_v = cached_k + v_offset
    position %= SEGMENT
    tile = cached_k + (position // STREAM) * size * STREAM * element_bytes(attention)
    column = tile + (position % STREAM) * element_bytes(attention)
    step = STREAM * element_bytes(attention)
    for i in range(0, size // 2, lanes(isa)):
        x = k + 4 * i
        left, right = _rotate(isa, x, x + 2 * size, angles + 4 * i, angles + 2 * size + 4 * i)
        _scatter_cached(attention, column + i * step, step, left)
        _scatter_cached(attention, column + (size // 2 + i) * step, step, right)
    for i in range(0, size, lanes(isa)):
        tile = (position // 64) * (size // STREAM) + i // STREAM
        place = (tile * 64 + position % 64) * STREAM + i % STREAM
        value = load_f32(isa, v + 4 * i)
        _store_cached(attention, cached_v + place * element_bytes(attention), value)


@inline_kernel
def _rotate(isa, x, y, cosines, sines):  # type: ignore[no-untyped-def]
    left, right = load_f32(isa, x), load_f32(isa, y)
    cosine, sine = load_f32(isa, cosines), load_f32(isa, sines)
    return left * cosine - right * sine, right * cosine + left * sine


@inline_kernel
def _scatter_cached(attention, address, step, value):  # type: ignore[no-untyped-def]
    if element_bytes(attention) == 2:
        scatter_as_f16(address, step, value)
    else:
        scatter(address, step, value)


@inline_kernel
def _store_cached(attention, address, value):  # type: ignore[no-untyped-def]
    if element_bytes(attention) == 2:
        store_as_f16(address, value)
    else:
        store(address, value)
