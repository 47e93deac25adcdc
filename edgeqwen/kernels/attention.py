"""Attention: of one token, split over positions and merged; and of many tokens, by groups.

Both go through the positions unit by unit and add one unit's result to those before it in the same
way, so that a token's output has the same bits in both: what a session has read in one way may be
read in another, and nothing changes.
"""

from dataclasses import dataclass

import numpy as np

from edgeqwen.formats.panel import Panel
from edgeqwen.kernels.attention_core import attend
from edgeqwen.kernels.attention_products import (
    SCORES_STRIDE,
    WEIGHTS_STRIDE,
    group,
    head_dim,
    n_rows,
    tokens_per_chunk,
)
from edgeqwen.kernels.attention_types import SEGMENT, AttentionShape
from edgeqwen.kernels.caching import cache_token
from edgeqwen.kernels.key_biases import HEADER
from edgeqwen.kernels.panels import panel_block_bytes, write_block
from edgeqwen.kernels.rope import rotate_queries
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_kernel, inline_kernel
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.ops import (
    exp2,
    fma,
    isa_of,
    lanes,
    load_f32,
    max_lanes,
    part_of_token,
    peek_f32,
    poke_f32,
    poke_i32,
    splat_f32,
    store,
)
from edgeqwen.simd.records import record, record_view
from edgeqwen.simd.token import Token

UNIT = SEGMENT
"""Positions that are attended to together. Fixed, so that results don't depend on threads."""

ATTENTION = record(
    "state",
    "q",  # float32 [n_tokens][stride / 4]: the query heads, rotated and scaled; of one token,
    # neither, and behind them its key and value heads
    "stride",
    "angles",  # one token: as in ROPE
    "q_scale",
    "layer",  # bytes from the start of a segment to the layer's first KV head
    "head_bytes",  # from one KV head to the next
    "v_offset",  # from a KV head's K to its V
    "n_kv_heads",
    "biases",  # of keys, kept apart: float32 [KV heads][head_dim]; and int32 [KV heads][HEADER +
    "pairs",  # head_dim], as in ``bias_factors``; 0 where the cache type has none
    "scratch",  # a thread's scratch memory is at scratch + worker * scratch_bytes
    "scratch_bytes",
    "partials",  # one token: [units][KV heads] of float32 [rows][head_dim], [rows], [rows]
    "output",  # float32 [n_tokens][n_heads * head_dim]
    "panels",  # one token: the same for the product that comes next
)
attention_view = record_view(ATTENTION)


def scratch_bytes(padded_rows: int, head_dim: int) -> int:
    """Returns how much scratch memory a thread needs.

    It holds q, out, scores, limits and what ``attend`` needs to spare; and of the unit at hand out,
    largest and sums, beside those of all units.
    """
    row_bytes = 16 * head_dim + SCORES_STRIDE + WEIGHTS_STRIDE + 20
    return -(-padded_rows * row_bytes // 4096) * 4096


@inline_kernel
def _copy_queries(attention, source, row, scratch):  # type: ignore[no-untyped-def]
    """Copies the query heads of one token and KV head to scratch rows from ``row`` on."""
    isa = isa_of(attention)
    width = 4 * head_dim(attention)
    for i in range(0, group(attention) * width, 4 * lanes(isa)):
        store(scratch + row * width + i, load_f32(isa, source + i))


@inline_kernel
def _cache_of(attention, a, state, head):  # type: ignore[no-untyped-def]
    """Where the keys and values of a KV head are, as ``attend`` takes it."""
    biases = a.biases + 4 * head_dim(attention) * head
    pairs = a.pairs + 4 * (HEADER + head_dim(attention)) * head
    offset = a.layer + head * a.head_bytes
    return state.segments, state.rotations, offset, a.v_offset, pairs, biases


@inline_kernel
def _add_unit(attention, out, largest, sums, unit_out, unit_largest, unit_sum, is_first):  # type: ignore[no-untyped-def]
    """Adds one row's result of a unit to that of the units before: ``attend``'s, not normalised."""
    isa = isa_of(attention)
    width = 4 * head_dim(attention)
    if is_first:
        poke_f32(largest, unit_largest)
        poke_f32(sums, unit_sum)
        for i in range(0, width, 4 * lanes(isa)):
            store(out + i, load_f32(isa, unit_out + i))
        return
    before = peek_f32(largest)
    top = max(before, unit_largest)
    old, new = exp2(splat_f32(isa, before - top)), exp2(splat_f32(isa, unit_largest - top))
    poke_f32(largest, top)
    total = fma(new, splat_f32(isa, unit_sum), old * splat_f32(isa, peek_f32(sums)))
    poke_f32(sums, max_lanes(total))
    for i in range(0, width, 4 * lanes(isa)):
        store(out + i, fma(new, load_f32(isa, unit_out + i), old * load_f32(isa, out + i)))


@exact_kernel
def attention_one(attention, args, chunk, worker):  # type: ignore[no-untyped-def]
    """One token attends to UNIT positions of one KV head; ``attention_merge`` comes next.

    It rotates the queries for itself, and the unit with the token's own position first puts its
    key and value into the cache.
    """
    a = attention_view(args)
    state = state_view(a.state)
    rows, width = n_rows(attention), 4 * head_dim(attention)
    head, unit = chunk % a.n_kv_heads, chunk // a.n_kv_heads
    scratch = a.scratch + worker * a.scratch_bytes
    limits = scratch + rows * (width + SCORES_STRIDE)
    n_positions = state.n_past + 1
    queries = a.q + head * group(attention) * width
    rotate_queries(attention, queries, a.angles, a.q_scale, scratch)
    cache = _cache_of(attention, a, state, head)
    if unit == state.n_past // UNIT:
        key = a.q + (a.n_kv_heads * group(attention) + head) * width
        value = key + a.n_kv_heads * width
        cache_token(attention, key, value, a.angles, state.n_past, cache)
    for r in range(rows):
        poke_i32(limits + 4 * r, np.int32(n_positions))
    partial = a.partials + chunk * rows * (width + 8)
    attend(
        attention,
        scratch,
        cache,
        unit * UNIT,
        min((unit + 1) * UNIT, n_positions),
        limits,
        partial + rows * width,
        partial + rows * (width + 4),
        partial,
        scratch + rows * width,
        limits + 4 * rows,
    )


@dataclass(frozen=True, slots=True)
class Merging(Token):
    """How one token's attention is computed, and the panels that its output goes into."""

    attention: AttentionShape
    panel: Panel

    @property
    def token_name(self) -> str:
        return f"Merging({self.attention.token_name}, {self.panel.token_name})"

    @property
    def isa(self) -> Isa:
        return self.attention.isa


_attention_of = part_of_token("attention")
_panel_of = part_of_token("panel")


@exact_kernel
def attention_merge(merging, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Merges the units of one query head (chunk = head) and writes its output, into panels too."""
    attention, panel = _attention_of(merging), _panel_of(merging)
    a = attention_view(args)
    rows, width = n_rows(attention), 4 * head_dim(attention)
    head, r = chunk // group(attention), chunk % group(attention)
    n_units = (state_view(a.state).n_past + UNIT) // UNIT
    out = a.scratch + worker * a.scratch_bytes
    largest, sums = out + width, out + width + 4
    for unit in range(n_units):
        partial = a.partials + (unit * a.n_kv_heads + head) * rows * (width + 8)
        unit_largest = peek_f32(partial + rows * width + 4 * r)
        unit_sum = peek_f32(partial + rows * (width + 4) + 4 * r)
        row = partial + r * width
        _add_unit(attention, out, largest, sums, row, unit_largest, unit_sum, unit == 0)
    target = a.output + chunk * width
    _write_head(attention, out, peek_f32(sums), target)
    blocks = head_dim(attention) // 32
    for i in range(blocks):
        place = a.panels + (chunk * blocks + i) * panel_block_bytes(panel)
        write_block(panel, target + 128 * i, place, 0)


@exact_kernel
def attention_many(attention, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Some tokens attend to all positions before them, for one KV head."""
    a = attention_view(args)
    state = state_view(a.state)
    n_tokens, n_past = state.n_tokens, state.n_past
    rows, width = n_rows(attention), 4 * head_dim(attention)
    per_chunk, heads = tokens_per_chunk(attention), group(attention)
    n_groups = (n_tokens + per_chunk - 1) // per_chunk
    # The last tokens see most positions: they come first, so that no thread is left with them.
    head, first = chunk % a.n_kv_heads, (n_groups - 1 - chunk // a.n_kv_heads) * per_chunk
    count = min(per_chunk, n_tokens - first)
    q = a.scratch + worker * a.scratch_bytes
    out = q + rows * width
    unit_out = out + rows * width
    scores = unit_out + rows * width
    limits = scores + rows * SCORES_STRIDE
    largest, sums = limits + 4 * rows, limits + 8 * rows
    unit_largest, unit_sums = limits + 12 * rows, limits + 16 * rows
    for r in range(rows):
        token = min(r // heads, count - 1)
        poke_i32(limits + 4 * r, np.int32(n_past + first + token + 1))
        if r % heads == 0 and r // heads < count:
            source = a.q + (first + token) * a.stride + head * heads * width
            _copy_queries(attention, source, r, q)
    end = n_past + first + count
    cache = _cache_of(attention, a, state, head)
    for position in range(0, end, UNIT):
        attend(
            attention,
            q,
            cache,
            position,
            min(position + UNIT, end),
            limits,
            unit_largest,
            unit_sums,
            unit_out,
            scores,
            unit_sums + 4 * rows,
        )
        for r in range(count * heads):
            at = 4 * r
            _add_unit(
                attention,
                out + r * width,
                largest + at,
                sums + at,
                unit_out + r * width,
                peek_f32(unit_largest + at),
                peek_f32(unit_sums + at),
                position == 0,
            )
    for r in range(count * heads):
        query_head, token = head * heads + r % heads, first + r // heads
        target = a.output + (token * a.n_kv_heads * heads + query_head) * width
        _write_head(attention, out + r * width, peek_f32(sums + 4 * r), target)


@inline_kernel
def _write_head(attention, out, weights_sum, target):  # type: ignore[no-untyped-def]
    """Divides one head's output by the sum of its weights."""
    isa = isa_of(attention)
    inverse = splat_f32(isa, np.float32(1) / weights_sum)
    for i in range(0, 4 * head_dim(attention), 4 * lanes(isa)):
        store(target + i, load_f32(isa, out + i) * inverse)
