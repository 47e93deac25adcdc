"""Attention over a range of positions with online softmax: the part that all steps share."""

import numpy as np

from edgeqwen.kernels.attention_products import (
    BLOCK,
    SCORES_STRIDE,
    WEIGHTS_STRIDE,
    head_dim,
    keeps_biases_apart,
    key_block_bytes,
    multiply_keys,
    multiply_values,
    n_rows,
    value_block_bytes,
)
from edgeqwen.kernels.attention_types import SEGMENT, STREAM
from edgeqwen.kernels.key_biases import HEADER, bias_factors
from edgeqwen.simd.compile import inline_kernel
from edgeqwen.simd.ops import (
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

# Finite, so that a row whose scores are all masked doesn't become NaN; and so far apart that what
# is masked has no weight even where all that is seen lies below LOWEST.
LOWEST, MASKED = np.float32(-1e30), np.float32(-3e38)


@inline_kernel
def attend(  # type: ignore[no-untyped-def]
    attention, q, cache, first, end, limits, largest, sums, out, scores, spare
):
    """Attends to positions [first, end); ``first`` is a multiple of 128.

    q float32 [rows][head_dim], times log2(e) / sqrt(head_dim); cache: where the KV head's keys and
    values are: (segments, rotations) as in STATE, (offset, v_offset) as in ATTENTION, (pairs,
    biases) of the head as in ``bias_factors``; limits int32 [rows]: a row sees positions below its
    limit. Results, not normalised: largest [rows] (of the scores, base 2), sums [rows], out
    [rows][head_dim], all float32. Scratch memory: scores float32 [rows][SCORES_STRIDE / 4], spare
    float32 [rows][WEIGHTS_STRIDE / 4 + head_dim].
    """
    segments, rotations, offset, v_offset, pairs, biases = cache
    isa = isa_of(attention)
    width = 4 * head_dim(attention)
    blocks = head_dim(attention) // STREAM
    factors = spare + n_rows(attention) * WEIGHTS_STRIDE
    n_pairs, tile_bytes, turned = 0, 0, 0
    if keeps_biases_apart(attention):
        n_pairs, tile_bytes = peek_i32(pairs), peek_i32(pairs + 4)
        bias_factors(attention, q, pairs, biases, factors)
        pairs += 4 * HEADER
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
        if n_pairs > 0:
            turned = peek_i64(rotations + 8 * (position // SEGMENT))
        for t in range(padded // STREAM):
            tile = inside // STREAM + t
            keys = k + tile * blocks * key_block_bytes(attention)
            here, to = turned + tile * tile_bytes, scores + 128 * t
            multiply_keys(attention, q, keys, n_pairs, pairs, factors, here, to)
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
            for c in range(blocks):
                block = v + ((inside // 64 + t) * blocks + c) * value_block_bytes(attention)
                weights, n_here = scores + 256 * t, min(64, n - 64 * t)
                multiply_values(attention, weights, block, n_here, spare, out + 128 * c)
        position += n
