"""The product for many tokens: a chunk's tiles are unpacked once, then meet panel after panel.

All happens in stretches of blocks. A stretch of the chunk's tiles, unpacked, should fit the
second-level cache; a stretch of a panel fits the first-level cache while they go by. Accumulators
wait in scratch memory from one stretch to the next: sums are formed in the same order as in GEMV.
"""

from edgeqwen.formats.base import TILE_ROWS, Tiling
from edgeqwen.kernels.gemv import prefetch_after, prefetch_apart_after
from edgeqwen.kernels.products import (
    apart_block_bytes,
    apart_tile_bytes,
    block_bytes,
    header_bytes,
    load_partial,
    multiply_unpacked,
    panel_block_bytes,
    panel_tokens,
    partial_bytes,
    product_view,
    rows_at_once,
    save_partial,
    step_bytes,
    store_totals,
    tile_blocks,
    tile_bytes,
    unpack_block,
    unpacked_bytes,
    zero_totals,
)
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import (
    exact_kernel,
    inline_kernel,
    operation,
    optional_token_method,
    types,
)
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.ops import constant, part_of_token

# Bytes of a panel that stay in the first-level cache while unpacked tiles go by.
STRETCH_BYTES = 24 << 10
# Bytes of unpacked tiles, and tiles, that stay in the second-level cache while panels go by.
UNPACKED_BYTES = 512 << 10
MOST_TILES = 32
# No tile's stretch takes more.
LARGEST_STRETCH_BYTES = 64 << 10

tiling_of = part_of_token("tiling")
narrow = part_of_token("narrow")
tokens_used = constant(lambda t: t.value.n_used)
expands = constant(lambda t: int(t.value.expands))


def longest_stretch(tiling: Tiling) -> int:
    """Returns how many blocks are worked on at a time, at most: those of whole tiles."""
    tile_blocks = tiling.format.tile_blocks
    return max(1, STRETCH_BYTES // (tiling.step_bytes * tile_blocks)) * tile_blocks


longest = constant(lambda t: longest_stretch(t.value))


def stretch_blocks(tiling: Tiling, n_blocks: int) -> int:
    """Returns how many blocks are worked on at a time, so that stretches are of about one length.

    As ``_stretch`` computes it in the kernel.
    """
    tile_blocks = tiling.format.tile_blocks
    n_stretches = -(-n_blocks // longest_stretch(tiling))
    return -(-n_blocks // (n_stretches * tile_blocks)) * tile_blocks


def _tile_bytes_of_stretch(tiling: Tiling, n_blocks: int) -> int:
    row_groups = TILE_ROWS // (tiling.n_parts * tiling.isa.lanes)
    return row_groups * stretch_blocks(tiling, n_blocks) * tiling.unpacked_bytes


def most_tiles(tiling: Tiling, n_blocks: int) -> int:
    """Returns how many tiles a chunk should take at most: one in any case."""
    fitting = UNPACKED_BYTES // _tile_bytes_of_stretch(tiling, n_blocks)
    return min(max(1, fitting), MOST_TILES)


def scratch_bytes(tiling: Tiling, n_blocks: int, tiles_per_chunk: int, max_tokens: int) -> int:
    """Returns how much scratch memory a thread needs for steps of up to ``max_tokens`` tokens.

    A chunk's tiles are those of all ranges. GEMV needs none.
    """
    if tiling.n_tokens == 1:
        return 0
    n_panels = -(-max_tokens // tiling.n_tokens)
    expanded = longest_stretch(tiling) * tiling.step_bytes
    partials = n_panels * tiles_per_chunk * TILE_ROWS * tiling.n_tokens * 4
    return expanded + partials + tiles_per_chunk * _tile_bytes_of_stretch(tiling, n_blocks)


def most_scratch_bytes(max_tokens: int) -> int:
    """Returns as much as any product needs whose chunks take ``most_tiles``, or some more.

    Gate and up are two ranges of an even number of tiles each. ``max_tokens`` is that of whole
    panels.
    """
    more = 3
    partials = (MOST_TILES + more) * TILE_ROWS * max_tokens * 4
    return STRETCH_BYTES + partials + UNPACKED_BYTES + more * LARGEST_STRETCH_BYTES


@operation
def expand_block(typing_context, tiling, block, target):  # type: ignore[no-untyped-def]
    """Copies one panel block to scratch memory as the micro-kernel reads it, if that differs."""
    t = tiling.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        if t.expands:
            t.format.emit_expand(Emitter(builder, t.isa), t, values[1], values[2])
        return context.get_dummy_value()

    return types.void(tiling, types.int64, types.int64), codegen


@optional_token_method
def after_panel(token, a, tiles, first_token, n_tokens):  # type: ignore[no-untyped-def]
    """Goes on with the outputs of a panel's tokens while they are in the cache.

    ``tiles`` are the first and the one behind the last. Of most products, nothing is to be done.
    """


@inline_kernel
def _stretch(tiling, n_blocks):  # type: ignore[no-untyped-def]
    n_stretches = (n_blocks + longest(tiling) - 1) // longest(tiling)
    tiles = n_stretches * tile_blocks(tiling)
    return (n_blocks + tiles - 1) // tiles * tile_blocks(tiling)


@inline_kernel
def _unpack(tiling, a, tile, blocks, target):  # type: ignore[no-untyped-def]
    """Writes some blocks of a tile out unpacked: [row groups][blocks][parts]."""
    for row in range(0, TILE_ROWS, rows_at_once(tiling)):
        index = (tile * a.n_blocks + blocks[0]) // tile_blocks(tiling)
        for _ in range(blocks[0], blocks[1], tile_blocks(tiling)):
            place = a.weights + index * tile_bytes(tiling)
            index += 1
            block = place + header_bytes(tiling)
            apart = a.weights - index * apart_tile_bytes(tiling)
            for _ in range(tile_blocks(tiling)):
                prefetch_after(tiling, block)
                prefetch_apart_after(tiling, apart)
                unpack_block(tiling, place, block, apart, row, target)
                block += block_bytes(tiling)
                apart += apart_block_bytes(tiling)
                target += unpacked_bytes(tiling)
    return target


@inline_kernel
def _multiply_panel(tiling, a, tiles, blocks, unpacked, panel, output, n_valid, partial):  # type: ignore[no-untyped-def]
    """Multiplies a stretch of some tiles, unpacked, by that of a panel of ``n_valid`` tokens.

    ``tiles`` and ``blocks`` are the first and the one behind the last; ``output`` and ``partial``
    are addresses: of the panel's first token's output, and of its accumulators.
    """
    for tile in range(tiles[0], tiles[1]):
        for row in range(0, TILE_ROWS, rows_at_once(tiling)):
            activations = panel
            totals = zero_totals(tiling) if blocks[0] == 0 else load_partial(tiling, partial)
            for _ in range(blocks[0], blocks[1]):
                totals = multiply_unpacked(tiling, unpacked, activations, totals)
                unpacked += unpacked_bytes(tiling)
                activations += step_bytes(tiling)
            if blocks[1] < a.n_blocks:
                save_partial(tiling, totals, partial)
            else:
                row_bytes = 4 * (tile * TILE_ROWS + row)
                out, bias = output + row_bytes, a.bias + row_bytes if a.bias != 0 else 0
                store_totals(tiling, totals, out, a.stride, n_valid, bias, a.accumulate)
            partial += partial_bytes(tiling)


@inline_kernel
def multiply_many(token, a, first_tile, end_tile, scratch):  # type: ignore[no-untyped-def]
    """Computes the rows of some tiles for all tokens; ``a`` is a PRODUCT.

    Of a matrix with several ranges, the same of each. The token's ``after_panel`` is called for the
    tokens of each panel whose outputs are there.
    """
    tiling = tiling_of(token)
    n_tokens, n_blocks = state_view(a.state).n_tokens, a.n_blocks
    n_panels = (n_tokens + panel_tokens(tiling) - 1) // panel_tokens(tiling)
    partials = scratch + longest(tiling) * step_bytes(tiling)
    range_partials = (end_tile - first_tile) * (TILE_ROWS * 4 * panel_tokens(tiling))
    unpacked = partials + n_panels * a.ranges * range_partials
    stretch, half = _stretch(tiling, n_blocks), narrow(tiling)
    for first in range(0, n_blocks, stretch):
        blocks = (first, min(first + stretch, n_blocks))
        target = unpacked
        for skipped in range(0, a.ranges * a.n_tiles, a.n_tiles):
            for tile in range(skipped + first_tile, skipped + end_tile):
                target = _unpack(tiling, a, tile, blocks, target)
        range_bytes = (target - unpacked) // a.ranges
        for i in range(n_panels):
            panel = a.panels + (i * n_blocks + first) * panel_block_bytes(tiling)
            if expands(tiling):
                for j in range(blocks[1] - first):
                    block = panel + j * panel_block_bytes(tiling)
                    expand_block(tiling, block, scratch + j * step_bytes(tiling))
                panel = scratch
            n_valid = min(n_tokens - i * panel_tokens(tiling), panel_tokens(tiling))
            out = a.output + i * panel_tokens(tiling) * a.stride
            weights, partial = unpacked, partials + i * a.ranges * range_partials
            for skipped in range(0, a.ranges * a.n_tiles, a.n_tiles):
                tiles = (skipped + first_tile, skipped + end_tile)
                if n_valid <= tokens_used(half) < panel_tokens(tiling):
                    _multiply_panel(half, a, tiles, blocks, weights, panel, out, n_valid, partial)
                else:
                    _multiply_panel(tiling, a, tiles, blocks, weights, panel, out, n_valid, partial)
                weights += range_bytes
                partial += range_partials
            if blocks[1] == n_blocks:
                after_panel(token, a, (first_tile, end_tile), i * panel_tokens(tiling), n_valid)


@exact_kernel
def gemm(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Computes the rows of one chunk of tiles for all tokens."""
    a = product_view(args)
    first = chunk * a.tiles_per_chunk
    end = min(first + a.tiles_per_chunk, a.n_tiles)
    multiply_many(tiling, a, first, end, a.scratch + worker * a.scratch_bytes)
