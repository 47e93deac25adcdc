"""Matrix products: weight tiles by panels of activations. One token is a GEMV, more are a GEMM.

output[token][row] = sum over columns of weight[row][column] * activation[token][column],
plus a bias, or added to what the output holds (the residual stream).
"""

from numba import types
from numba.extending import intrinsic

from edgeqwen.formats.base import TILE_ROWS, Tiling
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.ops import constant
from edgeqwen.simd.records import record, record_view
from edgeqwen.simd.types import VectorType

tile_bytes = constant(lambda t: t.tiling.format.tile_bytes)
panel_block_bytes = constant(lambda t: t.tiling.panel_block_bytes)
panel_tokens = constant(lambda t: t.tiling.n_tokens)
rows_at_once = constant(lambda t: t.tiling.n_parts * t.isa.lanes)


def _totals_type(tiling: Tiling) -> types.UniTuple:
    vector = VectorType("f32", tiling.isa.lanes, tiling.isa)
    return types.UniTuple(vector, tiling.n_parts * tiling.n_tokens)


@intrinsic
def zero_totals(typing_context, tiling):  # type: ignore[no-untyped-def]
    """Returns an accumulator for each part and token of the micro-kernel, all zero."""
    type_ = _totals_type(tiling.tiling)

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return Emitter(builder, tiling.tiling.isa).zero(context.get_value_type(type_))

    return type_(tiling), codegen


@intrinsic
def step(typing_context, tiling, tile, row, panel, totals):  # type: ignore[no-untyped-def]
    """Returns the totals plus the product of one tile (parts from ``row``) and one panel block."""
    t = tiling.tiling

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, tile, row, panel, totals = values
        e = Emitter(builder, t.isa)
        rows = [e.at(row, part * t.isa.lanes) for part in range(t.n_parts)]
        old = [builder.extract_value(totals, i) for i in range(t.n_parts * t.n_tokens)]
        for i, total in enumerate(t.format.emit_step(e, tile, rows, panel, old)):
            totals = builder.insert_value(totals, total, i)
        return totals

    return totals(tiling, types.int64, types.int64, types.int64, totals), codegen


@intrinsic
def store_totals(typing_context, tiling, totals, out, stride, n_valid, bias, accumulate):  # type: ignore[no-untyped-def]
    """Stores the totals of the first ``n_valid`` tokens, ``stride`` bytes apart.

    Adds the bias at ``bias``, unless that is 0, and what the output holds if ``accumulate``.
    """
    t = tiling.tiling

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, totals, out, stride, n_valid, bias, accumulate = values
        e = Emitter(builder, t.isa)
        width = 4 * t.isa.lanes
        has_bias = builder.icmp_signed("!=", bias, e.i64(0))
        adds = builder.icmp_signed("!=", accumulate, e.i64(0))
        for token in range(t.n_tokens):
            with builder.if_then(builder.icmp_signed("<", e.i64(token), n_valid)):
                base = builder.add(out, builder.mul(stride, e.i64(token)))
                for part in range(t.n_parts):
                    slot = builder.alloca(e.f32v)
                    builder.store(builder.extract_value(totals, part * t.n_tokens + token), slot)
                    for condition, address in ((has_bias, bias), (adds, base)):
                        with builder.if_then(condition):
                            added = e.load(e.f32v, address, width * part)
                            builder.store(builder.fadd(builder.load(slot), added), slot)
                    e.store(builder.load(slot), base, width * part)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, totals, i, i, i, i, i), codegen


MATMUL = record(
    "state",  # address of the step's STATE
    "weights",  # tiles
    "n_blocks",  # columns / 32
    "n_tiles",
    "tiles_per_chunk",
    "panels",
    "output",  # float32 [n_tokens][stride / 4], with room for 16 rows a tile
    "stride",  # bytes from one token's output to the next
    "bias",  # float32 [16 * n_tiles], or 0
    "accumulate",  # 1: add to what the output holds
)
matmul_view = record_view(MATMUL)


@kernel
def matmul(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Computes the rows of one chunk of tiles for all tokens."""
    a = matmul_view(args)
    n_tokens = state_view(a.state).n_tokens
    n_blocks, stride, bias, accumulate = a.n_blocks, a.stride, a.bias, a.accumulate
    width = panel_tokens(tiling)
    for tile in range(chunk * a.tiles_per_chunk, min((chunk + 1) * a.tiles_per_chunk, a.n_tiles)):
        for row in range(0, TILE_ROWS, rows_at_once(tiling)):
            row_bytes = 4 * (tile * TILE_ROWS + row)
            panel = a.panels
            for first in range(0, n_tokens, width):
                weight = a.weights + tile * n_blocks * tile_bytes(tiling)
                totals = zero_totals(tiling)
                for _ in range(n_blocks):
                    totals = step(tiling, weight, row, panel, totals)
                    weight += tile_bytes(tiling)
                    panel += panel_block_bytes(tiling)
                store_totals(
                    tiling,
                    totals,
                    a.output + first * stride + row_bytes,
                    stride,
                    n_tokens - first,
                    bias + row_bytes if bias != 0 else 0,
                    accumulate,
                )
