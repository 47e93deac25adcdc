"""The product for many tokens: a panel of them for every tile that is unpacked.

A chunk's tiles should fit the second-level cache. For each panel, and each stretch of its blocks
that fits the first-level cache, all tiles of the chunk go by; their accumulators wait in scratch
memory from one stretch to the next. Sums are formed in the same order as in GEMV.
"""

from edgeqwen.formats.base import TILE_ROWS, Tiling
from edgeqwen.kernels.products import (
    apart_block_bytes,
    apart_tile_bytes,
    block_bytes,
    header_bytes,
    load_partial,
    panel_block_bytes,
    panel_tokens,
    partial_bytes,
    product_view,
    rows_at_once,
    save_partial,
    step,
    step_bytes,
    store_totals,
    tile_blocks,
    tile_bytes,
    zero_totals,
)
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_inline_kernel, exact_kernel, operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.ops import constant

# Bytes of a panel that stay in the first-level cache while tiles go by.
STRETCH_BYTES = 20 << 10

expands = constant(lambda t: int(t.value.expands))


def stretch_blocks(tiling: Tiling) -> int:
    """Returns how many blocks of a panel are worked on at a time: those of whole tiles."""
    tile_blocks = tiling.format.tile_blocks
    return max(1, STRETCH_BYTES // (tiling.step_bytes * tile_blocks)) * tile_blocks


stretch = constant(lambda t: stretch_blocks(t.value))


def scratch_bytes(tiling: Tiling, tiles_per_chunk: int) -> int:
    """Returns how much scratch memory a thread needs."""
    stretch_bytes = stretch_blocks(tiling) * tiling.step_bytes
    return stretch_bytes + tiles_per_chunk * TILE_ROWS * tiling.n_tokens * 4


@operation
def expand_block(typing_context, tiling, block, target):  # type: ignore[no-untyped-def]
    """Copies one panel block to scratch memory as the micro-kernel reads it, if that differs."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        if t.expands:
            t.format.emit_expand(Emitter(builder, t.isa), t, values[1], values[2])
        return context.get_dummy_value()

    return types.void(tiling, types.int64, types.int64), codegen


@exact_inline_kernel
def multiply_many(tiling, a, first_tile, end_tile, scratch):  # type: ignore[no-untyped-def]
    """Computes the rows of some tiles for all tokens; ``a`` is a PRODUCT."""
    n_tokens, n_blocks = state_view(a.state).n_tokens, a.n_blocks
    stride, bias, accumulate = a.stride, a.bias, a.accumulate
    partials = scratch + stretch(tiling) * step_bytes(tiling)
    for first_token in range(0, n_tokens, panel_tokens(tiling)):
        panel = a.panels + first_token // panel_tokens(tiling) * n_blocks * panel_block_bytes(
            tiling
        )
        output = a.output + first_token * stride
        for first in range(0, n_blocks, stretch(tiling)):
            end = min(first + stretch(tiling), n_blocks)
            start = panel + first * panel_block_bytes(tiling)
            if expands(tiling):
                for i in range(end - first):
                    block = start + i * panel_block_bytes(tiling)
                    expand_block(tiling, block, scratch + i * step_bytes(tiling))
                start = scratch
            partial = partials
            for tile in range(first_tile, end_tile):
                for row in range(0, TILE_ROWS, rows_at_once(tiling)):
                    index = (tile * n_blocks + first) // tile_blocks(tiling)
                    place = a.weights + index * tile_bytes(tiling)
                    activations = start
                    totals = zero_totals(tiling) if first == 0 else load_partial(tiling, partial)
                    for _ in range(first, end, tile_blocks(tiling)):
                        index += 1
                        block = place + header_bytes(tiling)
                        apart = a.weights - index * apart_tile_bytes(tiling)
                        for _ in range(tile_blocks(tiling)):
                            totals = step(tiling, place, block, apart, row, activations, totals)
                            block += block_bytes(tiling)
                            apart += apart_block_bytes(tiling)
                            activations += step_bytes(tiling)
                        place += tile_bytes(tiling)
                    if end < n_blocks:
                        save_partial(tiling, totals, partial)
                    else:
                        row_bytes = 4 * (tile * TILE_ROWS + row)
                        store_totals(
                            tiling,
                            totals,
                            output + row_bytes,
                            stride,
                            n_tokens - first_token,
                            bias + row_bytes if bias != 0 else 0,
                            accumulate,
                        )
                    partial += partial_bytes(tiling)


@exact_kernel
def gemm(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Computes the rows of one chunk of tiles for all tokens."""
    a = product_view(args)
    first = chunk * a.tiles_per_chunk
    end = min(first + a.tiles_per_chunk, a.n_tiles)
    multiply_many(tiling, a, first, end, a.scratch + worker * a.scratch_bytes)
