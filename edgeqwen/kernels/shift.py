"""Moves what a sequence remembers to earlier positions: the cached keys turn back, values follow.

A key was rotated by its position times the frequencies; at a position that is n less, it is to be
rotated by that much less, which is one more rotation by -n times the frequencies. The factor that
YaRN multiplies cosines and sines by is in the key already, and the turn leaves it alone.
"""

from edgeqwen.kernels.attention_core import element_bytes, head_dim
from edgeqwen.kernels.attention_types import SEGMENT, STREAM
from edgeqwen.kernels.rope import cache_token
from edgeqwen.simd.compile import inline_kernel, kernel
from edgeqwen.simd.ops import (
    gather,
    gather_f16,
    isa_of,
    lanes,
    load_f16,
    load_f32,
    peek_i64,
    store,
)
from edgeqwen.simd.records import record, record_view

MOVE = record(  # changes from one shift to the next, as STATE does from step to step
    "segments",  # as in STATE
    "targets",  # likewise, where the tokens move to; the segments themselves, or others
    "first",  # the positions [first + distance, end) move to [first, end - distance)
    "end",
    "distance",  # at least 1
)
move_view = record_view(MOVE)

SHIFT = record(
    "move",  # address of MOVE
    "turn",  # float32 [head_dim]: cosines, then sines, of -distance * frequency
    "n_kv_heads",
    "layer_bytes",  # from one layer of a segment to the next
    "head_bytes",  # as in ATTENTION
    "v_offset",
    "scratch",  # float32 [2 * head_dim] of each thread, scratch_bytes apart
    "scratch_bytes",
)
shift_view = record_view(SHIFT)


@kernel
def shift(attention, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Moves the keys and values of one layer and KV head: chunk = layer * n_kv_heads + head.

    Also in place, position after position: none is written before it was read.
    """
    a = shift_view(args)
    move = move_view(a.move)
    layer, head = chunk // a.n_kv_heads, chunk % a.n_kv_heads
    offset = layer * a.layer_bytes + head * a.head_bytes
    k = a.scratch + worker * a.scratch_bytes
    v = k + 4 * head_dim(attention)
    for position in range(move.first, move.end - move.distance):
        source = position + move.distance
        read_token(attention, source, move.segments, offset, a.v_offset, k, v)
        cache_token(attention, k, v, a.turn, position, move.targets, offset, a.v_offset)


@inline_kernel
def read_token(attention, position, segments, offset, v_offset, k, v):  # type: ignore[no-untyped-def]
    """Reads the key and the value of one token and KV head: ``cache_token`` without a rotation.

    k, v: where they go, float32 [head_dim]. Of the cache, the other arguments are as there.
    """
    isa = isa_of(attention)
    size = head_dim(attention)
    cached_k = peek_i64(segments + 8 * (position // SEGMENT)) + offset
    cached_v = cached_k + v_offset
    position %= SEGMENT
    tile = cached_k + (position // STREAM) * size * STREAM * element_bytes(attention)
    column = tile + (position % STREAM) * element_bytes(attention)
    step = STREAM * element_bytes(attention)
    for i in range(0, size, lanes(isa)):
        store(k + 4 * i, _gather_cached(attention, column + i * step, step))
        tile = (position // 64) * (size // STREAM) + i // STREAM
        place = (tile * 64 + position % 64) * STREAM + i % STREAM
        store(v + 4 * i, _load_cached(attention, cached_v + place * element_bytes(attention)))


@inline_kernel
def _gather_cached(attention, address, step):  # type: ignore[no-untyped-def]
    if element_bytes(attention) == 2:
        return gather_f16(isa_of(attention), address, step)
    return gather(isa_of(attention), address, step)


@inline_kernel
def _load_cached(attention, address):  # type: ignore[no-untyped-def]
    if element_bytes(attention) == 2:
        return load_f16(isa_of(attention), address)
    return load_f32(isa_of(attention), address)
