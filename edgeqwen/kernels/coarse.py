"""The coarse pass over a screened head: how large every row's logit may be, from its high bits.

With the low bits at their mean, a row's logit is off by the sum over its weights of
scale * (low - mean) * activation. Low bits are as good as random and independent, so the sum has a
variance of scale**2 * variance * (the activations' squares), summed over the groups of columns that
share a scale. A row's *bound* is its coarse logit plus ``DEVIATIONS`` standard deviations. That is
statistics, no proof; ``kernels/screen.py`` tells what is done about it.

A few activations of a model are much larger than all others, and cause most of the error. So of
some columns, the low bits are looked up for all rows: a line of memory for 16 rows and 8 columns or
more (``kernels/coarse_factors.py`` chooses them). They are nearly always those of the same columns,
and memory is slow where single lines of it are read. So they are *kept*: copied once, side by side,
and read in order for the tokens that follow.

Squares of small numbers would vanish in float32. So a row's *spread* is the square of all the
deviations together over that of ``reach``, the largest group's share in them.
"""

import math
from typing import Any

import numpy as np

from edgeqwen.formats.base import TILE_ROWS, Place, Tiling
from edgeqwen.kernels.gemv import prefetch_after
from edgeqwen.kernels.products import (
    apart_tile_bytes,
    block_bytes,
    header_bytes,
    panel_block_bytes,
    tile_blocks,
    tile_bytes,
)
from edgeqwen.simd.compile import exact_kernel, inline_kernel, operation, types
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import constant, peek_f32, peek_i64, poke_i64, zeros
from edgeqwen.simd.records import record, record_view

DEVIATIONS = 8
LOWEST = float(np.finfo(np.float32).min)
"""What stands for a logit that was not computed."""

COARSE = record(
    "weights",  # tiles of a screened format
    "n_blocks",  # columns / 32
    "n_tiles",
    "tiles_per_chunk",
    "panels",  # of one token
    "sizes",  # float32 [n_blocks][groups]: the mean square of the weights' scales
    "factors",  # float32 reach, then for each block what ``ScreenedFormat.emit_coarse`` reads
    "shares",  # float32 [n_blocks][lines]: of the errors' variance, what each line is the cause of
    "lines",  # int64: how many lines are looked up in every tile, and then a LINE for each
    "kept",  # uint8 [KEPT_LINES][n_tiles][64]: lines of earlier tokens
    "kept_lines",  # int64 [1 + 2 * KEPT_LINES]: tokens so far; what is kept, and when it was used
    "bounds",  # float32 [n_tiles][2]: the highest bound of the rows, the largest of the deviations
    "logits",  # float32 [16 * n_tiles]
)
coarse_view = record_view(COARSE)

LINE = record(
    "tile",  # bytes from the first of a row of tiles to the line's
    "block",  # bytes from there to the line's block
    "line",  # bytes from what lies apart of the row's last tile to the line
    "panel",  # address of the activations of the line's first columns
    "kept",  # address of the first tile's line among those that are kept
    "is_new",  # whether nothing is there yet
    "factors",  # float32 factor, shift [groups], see ``ScreenedFormat.emit_line``; two at most
    "more_factors",
)
line_view = record_view(LINE)
LINE_BYTES = LINE.itemsize
FACTORS_AT = LINE.names.index("factors") * 8 if LINE.names else 0
MOST_LINES = 8
KEPT_LINES = 16
_LINE = 64  # bytes of memory

factor_bytes = constant(lambda t: 4 * t.value.format.factor_floats)


def _sums_type(tiling: Tiling) -> Any:
    return types.UniTuple(types.VectorType("f32", tiling.isa.lanes, tiling.isa), 2 * tiling.n_parts)


zero_sums = zeros(_sums_type)
"""Returns a coarse logit and a spread for each row of a tile, all zero."""


@operation
def coarse_step(typing_context, tiling, tile, block, panel, factors, sums):  # type: ignore[no-untyped-def]
    """Returns the sums plus what a block of all rows of a tile adds to them."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, tile, block, panel, factors, sums = values
        e = Emitter(builder, t.isa)
        for part in range(t.n_parts):
            row = e.i64(part * t.isa.lanes)
            old = [builder.extract_value(sums, 2 * part + i) for i in range(2)]
            new = t.format.emit_coarse(e, Place(tile, block), row, panel, factors, old)
            for i, value in enumerate(new):
                sums = builder.insert_value(sums, value, 2 * part + i)
        return sums

    i = types.int64
    return sums(tiling, i, i, i, i, sums), codegen


@operation
def line_step(typing_context, tiling, tile, block, line, next_line, panel, factors, sums):  # type: ignore[no-untyped-def]
    """Returns the sums with the low bits of a line looked up; asks for another tile's line."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, tile, block, line, next_line, panel, factors, sums = values
        e = Emitter(builder, t.isa)
        e.prefetch(next_line, 0, 1)
        for part in range(t.n_parts):
            place, row = Place(tile, block, line), e.i64(part * t.isa.lanes)
            coarse = builder.extract_value(sums, 2 * part)
            coarse = t.format.emit_line(e, place, row, panel, factors, coarse)
            sums = builder.insert_value(sums, coarse, 2 * part)
        return sums

    i = types.int64
    return sums(tiling, i, i, i, i, i, i, sums), codegen


@inline_kernel
def coarse_sums(tiling, weights, tile, n_blocks, panels, factors, lines):  # type: ignore[no-untyped-def]
    """Returns the coarse logits and spreads of a tile's rows."""
    row_tiles = n_blocks // tile_blocks(tiling)
    first = weights + tile * row_tiles * tile_bytes(tiling)
    place, panel, factor = first, panels, factors + 4
    sums = zero_sums(tiling)
    for _ in range(row_tiles):
        block = place + header_bytes(tiling)
        for _ in range(tile_blocks(tiling)):
            prefetch_after(tiling, block)
            sums = coarse_step(tiling, place, block, panel, factor, sums)
            block += block_bytes(tiling)
            panel += panel_block_bytes(tiling)
            factor += factor_bytes(tiling)
        place += tile_bytes(tiling)
    apart_bytes = row_tiles * apart_tile_bytes(tiling)
    apart = weights - (tile + 1) * apart_bytes
    for i in range(peek_i64(lines)):
        record = lines + 8 + i * LINE_BYTES
        view = line_view(record)
        place, line = first + view.tile, view.kept + _LINE * tile
        later = line + 16 * _LINE  # tiles come in order, but for few of them
        if view.is_new != 0:
            source = apart + view.line
            for offset in range(0, _LINE, 8):
                poke_i64(line + offset, peek_i64(source + offset))
            later = source - apart_bytes
        block, factors = place + view.block, record + FACTORS_AT
        sums = line_step(tiling, place, block, line, later, view.panel, factors, sums)
    return sums


@operation
def store_bounds(typing_context, tiling, sums, reach, bounds, logits):  # type: ignore[no-untyped-def]
    """Stores a tile's two bounds, and that none of its logits is known yet.

    A bound that is no number, or infinite, is stored as infinity: such a tile is always computed.
    """
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, sums, reach, bounds, logits = values
        e = Emitter(builder, t.isa)
        infinity = e.f32(math.inf)
        highest, widest = e.f32(-math.inf), e.f32(0.0)
        for part in range(t.n_parts):
            coarse, deviations = _coarse_of_part(e, sums, reach, part)
            bound = builder.fadd(coarse, deviations)
            finite = builder.fcmp_ordered("<", e.unary("fabs", bound), infinity)
            highest = e.max(builder.select(finite, bound, infinity), highest)
            widest = e.max(deviations, widest)
            e.store(e.f32(LOWEST), logits, 4 * t.isa.lanes * part)
        e.store(e.reduce(highest, e.max), bounds)
        e.store(e.reduce(widest, e.max), bounds, 4)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, sums, types.float32, i, i), codegen


@operation
def store_errors(typing_context, tiling, sums, reach, logits, errors):  # type: ignore[no-untyped-def]
    """Stores sums over a tile's rows: of the squares of the coarse logits' errors over ``reach``,
    and of the spreads. The logits are exact."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, sums, reach, logits, errors = values
        e = Emitter(builder, t.isa)
        squares = spreads = e.f32(0.0)
        for part in range(t.n_parts):
            exact = e.load(e.f32v, logits, 4 * t.isa.lanes * part)
            error = builder.fsub(exact, builder.extract_value(sums, 2 * part))
            error = builder.fdiv(error, e.splat(reach, e.f32v))
            squares = e.fma(error, error, squares)
            spreads = builder.fadd(spreads, builder.extract_value(sums, 2 * part + 1))
        e.store(e.reduce(squares, builder.fadd), errors)
        e.store(e.reduce(spreads, builder.fadd), errors, 4)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, sums, types.float32, i, i), codegen


def _coarse_of_part(e: Emitter, sums: Value, reach: Value, part: int) -> tuple[Value, Value]:
    """Emits the coarse logits of a part's rows, and how far DEVIATIONS deviations go."""
    spread = e.b.extract_value(sums, 2 * part + 1)
    deviations = e.b.fmul(e.unary("sqrt", spread), e.splat(reach, e.f32v))
    return e.b.extract_value(sums, 2 * part), deviations


@exact_kernel
def coarse(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Bounds the logits of one chunk of tiles."""
    a = coarse_view(args)
    weights, n_blocks, panels = a.weights, a.n_blocks, a.panels
    factors, lines, reach = a.factors, a.lines, peek_f32(a.factors)
    first = chunk * a.tiles_per_chunk
    for tile in range(first, min(first + a.tiles_per_chunk, a.n_tiles)):
        sums = coarse_sums(tiling, weights, tile, n_blocks, panels, factors, lines)
        store_bounds(tiling, sums, reach, a.bounds + 8 * tile, a.logits + 4 * TILE_ROWS * tile)
