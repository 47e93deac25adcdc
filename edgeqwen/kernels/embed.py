"""The embedding lookup: rows of a packed matrix, dequantized into the residual stream."""

from edgeqwen.formats.base import BLOCK_COLUMNS, TILE_ROWS, Place
from edgeqwen.kernels.products import (
    apart_block_bytes,
    apart_tile_bytes,
    block_bytes,
    header_bytes,
    tile_blocks,
    tile_bytes,
)
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_kernel, operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.llvm_ir import ir
from edgeqwen.simd.ops import peek_i32
from edgeqwen.simd.records import record, record_view

EMBED = record(
    "state",
    "weights",  # tiles [vocab_size rows]
    "n_blocks",
    "x",  # float32 [n_tokens][hidden_size]
)
embed_view = record_view(EMBED)


@operation
def dequantize_block(typing_context, tiling, tile, block, apart, out):  # type: ignore[no-untyped-def]
    """Writes a block of a tile as float32 [32 columns][16 rows]."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, t.isa)
        for part in range(t.isa.parts):
            row = e.i64(part * t.isa.lanes)
            t.format.emit_dequantize(e, Place(*values[1:4]), row, values[4])
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, i, i, i, i), codegen


@operation
def dequantize_row(typing_context, tiling, tile, block, apart, row, out):  # type: ignore[no-untyped-def]
    """Writes the 32 columns of a block in one row of a tile as float32."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, tile, block, apart, row, out = values
        e = Emitter(builder, t.isa)
        scratch = e.scratch(TILE_ROWS * BLOCK_COLUMNS)
        first = builder.and_(row, e.i64(-t.isa.lanes))
        t.format.emit_dequantize(e, Place(tile, block, apart), first, scratch)
        column = builder.add(scratch, builder.mul(row, e.i64(4)))
        for k in range(BLOCK_COLUMNS):
            e.store(e.load(ir.F32, column, 4 * TILE_ROWS * k), out, 4 * k)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, i, i, i, i, i), codegen


@exact_kernel
def embed(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Looks one token up: chunk = token."""
    a = embed_view(args)
    row = peek_i32(state_view(a.state).tokens + 4 * chunk)
    row_tiles = a.n_blocks // tile_blocks(tiling)
    index = (row // TILE_ROWS) * row_tiles
    tile = a.weights + index * tile_bytes(tiling)
    out = a.x + 128 * chunk * a.n_blocks
    for _ in range(row_tiles):
        index += 1
        block = tile + header_bytes(tiling)
        apart = a.weights - index * apart_tile_bytes(tiling)
        for _ in range(tile_blocks(tiling)):
            dequantize_row(tiling, tile, block, apart, row % TILE_ROWS, out)
            block += block_bytes(tiling)
            apart += apart_block_bytes(tiling)
            out += 128
        tile += tile_bytes(tiling)
