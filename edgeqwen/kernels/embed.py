"""The embedding lookup: rows of a packed matrix, dequantized into the residual stream."""

from numba import types
from numba.extending import intrinsic

from edgeqwen.formats.base import TILE_COLUMNS, TILE_ROWS
from edgeqwen.kernels.products import tile_bytes
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.emitter import F32, Emitter
from edgeqwen.simd.ops import peek_i32
from edgeqwen.simd.records import record, record_view

EMBED = record(
    "state",
    "weights",  # tiles [vocab_size rows]
    "n_blocks",
    "x",  # float32 [n_tokens][hidden_size]
)
embed_view = record_view(EMBED)


@intrinsic
def dequantize_tile(typing_context, tiling, tile, out):  # type: ignore[no-untyped-def]
    """Writes a tile as float32 [32 columns][16 rows]."""
    t = tiling.tiling

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, t.isa)
        for part in range(t.isa.parts):
            t.format.emit_dequantize(e, values[1], e.i64(part * t.isa.lanes), values[2])
        return context.get_dummy_value()

    return types.void(tiling, types.int64, types.int64), codegen


@intrinsic
def dequantize_row(typing_context, tiling, tile, row, out):  # type: ignore[no-untyped-def]
    """Writes 32 columns of one row of a tile as float32."""
    t = tiling.tiling

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, tile, row, out = values
        e = Emitter(builder, t.isa)
        scratch = e.scratch(TILE_ROWS * TILE_COLUMNS)
        first = builder.and_(row, e.i64(-t.isa.lanes))
        t.format.emit_dequantize(e, tile, first, scratch)
        column = builder.add(scratch, builder.mul(row, e.i64(4)))
        for k in range(TILE_COLUMNS):
            e.store(e.load(F32, column, 4 * TILE_ROWS * k), out, 4 * k)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, i, i, i), codegen


@kernel
def embed(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Looks one token up: chunk = token."""
    a = embed_view(args)
    row = peek_i32(state_view(a.state).tokens + 4 * chunk)
    tile = a.weights + (row // TILE_ROWS) * a.n_blocks * tile_bytes(tiling)
    for block in range(a.n_blocks):
        out = a.x + 128 * (chunk * a.n_blocks + block)
        dequantize_row(tiling, tile + block * tile_bytes(tiling), row % TILE_ROWS, out)
