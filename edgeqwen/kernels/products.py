"""What GEMV and GEMM share: the micro-kernels, their accumulators, and where they go.

output[token][row] = sum over columns of weight[row][column] * activation[token][column],
plus a bias, or added to what the output holds (the residual stream). A micro-kernel multiplies
one or more parts of a tile by one or more tokens; its accumulators, one vector for each part and
token, stay in registers.
"""

from collections.abc import Sequence
from typing import Any

from edgeqwen.formats.base import Place, Tiling
from edgeqwen.simd.compile import operation, types
from edgeqwen.simd.emitter import Builder, Emitter, Value
from edgeqwen.simd.ops import constant, zeros
from edgeqwen.simd.records import record, record_view

tile_bytes = constant(lambda t: t.value.format.tile_bytes)
tile_blocks = constant(lambda t: t.value.format.tile_blocks)
header_bytes = constant(lambda t: t.value.format.header_bytes)
block_bytes = constant(lambda t: t.value.format.block_bytes)
apart_tile_bytes = constant(lambda t: t.value.format.apart_tile_bytes)
apart_block_bytes = constant(lambda t: t.value.format.apart_block_bytes)
panel_block_bytes = constant(lambda t: t.value.panel.block_bytes)
unpacked_bytes = constant(lambda t: t.value.unpacked_bytes)
step_bytes = constant(lambda t: t.value.step_bytes)
partial_bytes = constant(lambda t: 4 * t.isa.lanes * t.value.n_parts * t.value.n_used)
panel_tokens = constant(lambda t: t.value.n_tokens)
rows_at_once = constant(lambda t: t.value.n_parts * t.isa.lanes)


def _totals_type(tiling: Tiling) -> Any:
    vector = types.VectorType("f32", tiling.isa.lanes, tiling.isa)
    return types.UniTuple(vector, tiling.n_parts * tiling.n_used)


zero_totals = zeros(_totals_type)
"""Returns an accumulator for each part and token of the micro-kernel, all zero."""


@operation
def multiply_tile_block(typing_context, tiling, tile, block, apart, row, panel, totals):  # type: ignore[no-untyped-def]
    """Returns the totals plus the product of a tile's block (parts from ``row``) and a panel's.

    ``apart`` is the address of what the format keeps apart of the block, where it does; the panel's
    block is of one token.
    """
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, tile, block, apart, row, panel, totals = values
        e = Emitter(builder, t.isa)
        rows = [e.at(row, part * t.isa.lanes) for part in range(t.n_parts)]
        place = Place(tile, block, apart)
        old = _values(builder, totals, t)
        return _tuple(builder, totals, t.format.emit_one(e, t, place, rows, panel, old))

    i = types.int64
    return totals(tiling, i, i, i, i, i, totals), codegen


@operation
def unpack_block(typing_context, tiling, tile, block, apart, row, target):  # type: ignore[no-untyped-def]
    """Unpacks a tile's block, parts from ``row``, to ``target``."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, tile, block, apart, row, target = values
        e = Emitter(builder, t.isa)
        for part in range(t.n_parts):
            at = e.at(target, part * t.format.unpacked_bytes(t.isa))
            row_of_part = e.at(row, part * t.isa.lanes)
            t.format.emit_unpack(e, Place(tile, block, apart), row_of_part, at)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, i, i, i, i, i), codegen


@operation
def multiply_unpacked(typing_context, tiling, block, panel, totals):  # type: ignore[no-untyped-def]
    """Returns the totals plus the product of an unpacked block and a panel's.

    The panel's block is as in memory, or as ``expand_block`` has written it if the tiling says so.
    """
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, block, panel, totals = values
        old = _values(builder, totals, t)
        new = t.format.emit_many(Emitter(builder, t.isa), t, block, panel, old)
        return _tuple(builder, totals, new)

    return totals(tiling, types.int64, types.int64, totals), codegen


def _values(builder: Builder, totals: Value, tiling: Tiling) -> list[Value]:
    n = tiling.n_parts * tiling.n_used
    return [builder.extract_value(totals, i) for i in range(n)]


def _tuple(builder: Builder, totals: Value, values: Sequence[Value]) -> Value:
    for i, value in enumerate(values):
        totals = builder.insert_value(totals, value, i)
    return totals


@operation
def load_partial(typing_context, tiling, address):  # type: ignore[no-untyped-def]
    """Loads the accumulators that ``save_partial`` has stored."""
    t = tiling.value
    type_ = _totals_type(t)

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, t.isa)
        totals = e.zero(context.get_value_type(type_))
        for i in range(t.n_parts * t.n_used):
            loaded = e.load(e.f32v, values[1], 4 * t.isa.lanes * i)
            totals = builder.insert_value(totals, loaded, i)
        return totals

    return type_(tiling, types.int64), codegen


@operation
def save_partial(typing_context, tiling, totals, address):  # type: ignore[no-untyped-def]
    """Stores the accumulators side by side, to go on with them later."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, t.isa)
        for i in range(t.n_parts * t.n_used):
            e.store(builder.extract_value(values[1], i), values[2], 4 * t.isa.lanes * i)
        return context.get_dummy_value()

    return types.void(tiling, totals, types.int64), codegen


@operation
def store_totals(typing_context, tiling, totals, out, stride, n_valid, bias, accumulate):  # type: ignore[no-untyped-def]
    """Stores the totals of the first ``n_valid`` tokens, ``stride`` bytes apart.

    Adds the bias at ``bias``, unless that is 0, and what the output holds if ``accumulate``.
    """
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, totals, out, stride, n_valid, bias, accumulate = values
        e = Emitter(builder, t.isa)
        width = 4 * t.isa.lanes
        has_bias = builder.icmp_signed("!=", bias, e.i64(0))
        adds = builder.icmp_signed("!=", accumulate, e.i64(0))
        for token in range(t.n_used):
            with builder.if_then(builder.icmp_signed("<", e.i64(token), n_valid)):
                base = builder.add(out, builder.mul(stride, e.i64(token)))
                for part in range(t.n_parts):
                    slot = builder.alloca(e.f32v)
                    builder.store(builder.extract_value(totals, part * t.n_used + token), slot)
                    for condition, address in ((has_bias, bias), (adds, base)):
                        with builder.if_then(condition):
                            added = e.load(e.f32v, address, width * part)
                            builder.store(builder.fadd(builder.load(slot), added), slot)
                    e.store(builder.load(slot), base, width * part)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, totals, i, i, i, i, i), codegen


PRODUCT = record(
    "state",  # address of the step's STATE
    "weights",  # tiles
    "n_blocks",  # columns / 32
    "n_tiles",  # of a range
    "ranges",  # the matrix has so many ranges of n_tiles tiles; GEMM takes the same of each
    "tiles_per_chunk",
    "panels",  # GEMV only: a thread's own are at panels + worker * panels_of_worker
    "panels_of_worker",
    "output",  # float32 [n_tokens][stride / 4], with room for 16 rows a tile
    "stride",  # bytes from one token's output to the next
    "bias",  # float32 [16 * n_tiles], or 0
    "accumulate",  # 1: add to what the output holds
    "scratch",  # GEMM only: a thread's scratch memory is at scratch + worker * scratch_bytes
    "scratch_bytes",
)
product_view = record_view(PRODUCT)
