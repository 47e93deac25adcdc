"""The product for one token: every tile is read once, in memory's order.

How fast memory is read bounds the speed. A core waits for few lines at a time by itself: what it
has read ahead of a late one must fit its queues, and a block's instructions fill them. So lines
are asked for long before, first into the second-level cache, then from there into the first.
"""

from edgeqwen.formats.base import TILE_ROWS
from edgeqwen.kernels.products import (
    apart_block_bytes,
    apart_tile_bytes,
    block_bytes,
    header_bytes,
    multiply_tile_block,
    panel_block_bytes,
    product_view,
    rows_at_once,
    store_totals,
    tile_blocks,
    tile_bytes,
    zero_totals,
)
from edgeqwen.simd.compile import exact_kernel, inline_kernel, operation, types
from edgeqwen.simd.emitter import Emitter

LINE_BYTES = 64
# How many bytes before they are used, and into which cache: benchmarks/kernel_speed.py.
AHEAD = ((4096, 2), (1024, 1))


@operation
def prefetch_after(typing_context, tiling, block):  # type: ignore[no-untyped-def]
    """Asks for the lines of blocks that follow this one in memory, or may follow."""
    format_, isa = tiling.value.format, tiling.value.isa

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, isa)
        for ahead, level in AHEAD:
            for offset in range(0, format_.block_bytes, LINE_BYTES):
                e.prefetch(values[1], ahead + offset, level)
        return context.get_dummy_value()

    return types.void(tiling, types.int64), codegen


@operation
def prefetch_apart_after(typing_context, tiling, apart):  # type: ignore[no-untyped-def]
    """Asks for the lines of what the format keeps apart of the blocks that follow this one's.

    It lies in reverse, tile by tile.
    """
    format_, isa = tiling.value.format, tiling.value.isa

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, isa)
        for ahead, level in AHEAD:
            for offset in range(0, format_.apart_block_bytes, LINE_BYTES):
                e.prefetch(values[1], offset - ahead, level)
        return context.get_dummy_value()

    return types.void(tiling, types.int64), codegen


@inline_kernel
def multiply_one(tiling, a, first_tile, end_tile, panels):  # type: ignore[no-untyped-def]
    """Computes the rows of some tiles; ``a`` is a PRODUCT."""
    n_blocks, stride, bias, accumulate = a.n_blocks, a.stride, a.bias, a.accumulate
    row_tiles, weights = n_blocks // tile_blocks(tiling), a.weights
    weight = weights + first_tile * row_tiles * tile_bytes(tiling)
    for tile in range(first_tile, end_tile):
        for row in range(0, TILE_ROWS, rows_at_once(tiling)):
            totals = zero_totals(tiling)
            place, panel = weight, panels
            for i in range(row_tiles):
                block = place + header_bytes(tiling)
                apart = weights - (tile * row_tiles + i + 1) * apart_tile_bytes(tiling)
                for _ in range(tile_blocks(tiling)):
                    prefetch_after(tiling, block)
                    prefetch_apart_after(tiling, apart)
                    totals = multiply_tile_block(tiling, place, block, apart, row, panel, totals)
                    block += block_bytes(tiling)
                    apart += apart_block_bytes(tiling)
                    panel += panel_block_bytes(tiling)
                place += tile_bytes(tiling)
            row_bytes = 4 * (tile * TILE_ROWS + row)
            shifted = bias + row_bytes if bias != 0 else 0
            store_totals(tiling, totals, a.output + row_bytes, stride, 1, shifted, accumulate)
        weight += row_tiles * tile_bytes(tiling)


@exact_kernel
def gemv(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Computes the rows of one chunk of tiles."""
    a = product_view(args)
    first = chunk * a.tiles_per_chunk
    panels = a.panels + worker * a.panels_of_worker
    multiply_one(tiling, a, first, min(first + a.tiles_per_chunk, a.n_tiles), panels)
