"""Moves what a sequence remembers to earlier positions: the cached keys turn back, values follow.

A key was rotated by its position times the frequencies; at a position that is n less, it is to be
rotated by that much less, which is one more rotation by -n times the frequencies. The factor that
YaRN multiplies cosines and sines by is in the key already, and the turn leaves it alone. Biases
that are kept apart of the cache need nothing: attention adds them as at the new position.
"""

from edgeqwen.kernels.attention_products import head_dim
from edgeqwen.kernels.caching import cache_token, read_token
from edgeqwen.simd.compile import kernel
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
        read_token(attention, source, (move.segments, 0, offset, a.v_offset, 0, 0), k, v)
        target = (move.targets, 0, offset, a.v_offset, 0, 0)
        cache_token(attention, k, v, a.turn, position, target)
