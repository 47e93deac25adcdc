"""Rotary position embedding: the angles of a step, and what they rotate.

The angles of a step are computed once: angle = position * frequency in float32, as the models
were trained, then its cosine and sine in double precision. The two halves of a head rotate
against each other (the NeoX order): x[i], x[i + head_dim / 2].
"""

import math

import numpy as np

from edgeqwen.kernels.attention_products import group, head_dim
from edgeqwen.kernels.caching import cache_token, rotate
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_kernel, inline_kernel
from edgeqwen.simd.ops import (
    f32_from_bits,
    isa_of,
    lanes,
    load_f32,
    peek_f32,
    poke_f32,
    splat_f32,
    store,
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
    "biases",
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
        offset, biases = a.layer + head * a.head_bytes, a.biases + 4 * size * head
        cache = (state.segments, state.rotations, offset, a.v_offset, 0, biases)
        keys = k + 4 * size * head
        values = keys + 4 * size * n_kv_heads
        cache_token(attention, keys, values, angles, state.n_past + chunk, cache)


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
            first, second = load_f32(isa, x), load_f32(isa, x + 2 * size)
            c = angles + 4 * i
            left, right = rotate(isa, first, second, c, c + 2 * size)
            store(out + at, left * scale)
            store(out + at + 2 * size, right * scale)
