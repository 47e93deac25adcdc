"""The screen: finds the tiles of a head that may hold one of the k largest logits; computes them.

After the coarse pass, every tile has a bound (``kernels/coarse.py``). Then

1. the tiles with the highest bounds are the *seeds*: their logits are computed, exactly;
2. the k-th largest of these is a *threshold*: at least k logits reach it, for certain;
3. every other tile whose bound reaches it is computed, too.

All logits that were computed are those of the full product, bit for bit; the others hold LOWEST.
A logit among the k largest is missing only if its row's error exceeds its bound. If low bits are as
random as they look, that happens to one in 10**15 rows. To see that they do, the errors of the
seeds' rows, some hundred or more, are compared with what was expected of them: larger ones widen
all bounds as much, and much larger ones, or a NaN, have all tiles computed.

Penalties are those of a sampler that only lower logits: a penalised token is worth no more than
its logit, and counts for the threshold with what it is worth at least.
"""

import math

import numpy as np

from edgeqwen.formats.base import TILE_ROWS
from edgeqwen.kernels.coarse import DEVIATIONS, coarse_sums, store_errors
from edgeqwen.kernels.gemv import LINE_BYTES
from edgeqwen.kernels.products import (
    apart_block_bytes,
    apart_tile_bytes,
    block_bytes,
    header_bytes,
    multiply_tile_block,
    panel_block_bytes,
    store_totals,
    tile_blocks,
    tile_bytes,
    zero_totals,
)
from edgeqwen.simd.compile import exact_kernel, inline_kernel, operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.ops import f32_from_bits, peek_f32, peek_i64, peek_u8, poke_f32, poke_i64
from edgeqwen.simd.records import record, record_view

MOST_WANTED = 128
"""The largest k: for more, too many tiles would be computed one by one."""
LEAST_SEEDS, SEEDS_PER_WANTED = 32, 2
MOST_SEEDS = SEEDS_PER_WANTED * MOST_WANTED
# Errors that are so many times as large as expected: bounds aren't widened further.
MOST_WIDENED = 2.0

REQUEST = record(
    "k",  # how many of the largest logits are wanted, 1 to MOST_WANTED
    "penalised",  # uint8 [n_rows], 1 for penalised tokens
    "repetition",  # the bits of a float32: positive logits may be divided by it, others multiplied
    "subtracted",  # the bits of a float32: then, so much at most may be subtracted
)
request_view = record_view(REQUEST)

SCREEN = record(
    "request",
    "weights",  # tiles of a screened format
    "n_blocks",
    "n_rows",
    "n_tiles",
    "panels",
    "factors",  # as in COARSE
    "lines",  # as in COARSE
    "bounds",  # as in COARSE; seeds get -infinity
    "chosen",  # int64: how many seeds, how many tiles in all, and then these, seeds first [n_tiles]
    "errors",  # float32 [MOST_SEEDS][2]: sums over a seed's rows of squared errors, and of spreads
    "largest",  # float32 [MOST_WANTED]
    "logits",  # float32 [16 * n_tiles]
    "n_chunks",  # among so many chunks, the chosen tiles are divided
)
screen_view = record_view(SCREEN)


@exact_kernel
def choose_seeds(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Lists the tiles with the highest bounds: twice as many as logits are wanted, and some."""
    a = screen_view(args)
    wanted = max(LEAST_SEEDS, SEEDS_PER_WANTED * request_view(a.request).k)
    wanted = min(wanted, a.n_tiles)
    seeds = a.chosen + 16
    found = 0
    last = np.float32(0)
    for tile in range(a.n_tiles):
        bound = peek_f32(a.bounds + 8 * tile)
        if found < wanted or bound > last:
            place = min(found, wanted - 1)
            while place > 0:
                before = peek_i64(seeds + 8 * (place - 1))
                if peek_f32(a.bounds + 8 * before) >= bound:
                    break
                poke_i64(seeds + 8 * place, before)
                place -= 1
            poke_i64(seeds + 8 * place, tile)
            found = min(found + 1, wanted)
            last = peek_f32(a.bounds + 8 * peek_i64(seeds + 8 * (found - 1)))
    for i in range(found):
        poke_f32(a.bounds + 8 * peek_i64(seeds + 8 * i), np.float32(-np.inf))
    poke_i64(a.chosen, found)
    poke_i64(a.chosen + 8, found)


@exact_kernel
def choose_survivors(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Lists behind the seeds all tiles that may hold a logit among the largest."""
    a = screen_view(args)
    n_seeds = peek_i64(a.chosen)
    squares, spreads = 0.0, 0.0
    for i in range(n_seeds):
        squares += peek_f32(a.errors + 8 * i)
        spreads += peek_f32(a.errors + 8 * i + 4)
    widening = DEVIATIONS * math.sqrt(squares / spreads)
    threshold = np.float32(-np.inf)
    if widening <= MOST_WIDENED:  # and is no NaN
        threshold = _threshold(a.request, a.chosen, a.n_rows, a.logits, a.largest)
    more = np.float32(max(widening, 1.0) - 1)
    chosen = n_seeds
    for tile in range(a.n_tiles):
        bound = peek_f32(a.bounds + 8 * tile)
        if bound == -np.inf:  # a seed
            continue
        # What is no number is computed, too.
        if not bound + more * peek_f32(a.bounds + 8 * tile + 4) < threshold:
            poke_i64(a.chosen + 16 + 8 * chosen, tile)
            chosen += 1
    poke_i64(a.chosen + 8, chosen)


@inline_kernel
def _threshold(request, chosen, n_rows, logits, largest):  # type: ignore[no-untyped-def]
    """Returns the k-th largest of what the seeds' logits are worth at least, or -infinity."""
    r = request_view(request)
    repetition, subtracted = f32_from_bits(r.repetition), f32_from_bits(r.subtracted)
    found = 0
    for i in range(peek_i64(chosen)):
        first = TILE_ROWS * peek_i64(chosen + 16 + 8 * i)
        for row in range(first, min(first + TILE_ROWS, n_rows)):
            value = peek_f32(logits + 4 * row)
            if peek_u8(r.penalised + row) != 0:
                value = _worth(value, repetition, subtracted)
            if found == r.k and not value > peek_f32(largest + 4 * (found - 1)):
                continue
            place = min(found, r.k - 1)
            while place > 0 and peek_f32(largest + 4 * (place - 1)) < value:
                poke_f32(largest + 4 * place, peek_f32(largest + 4 * (place - 1)))
                place -= 1
            poke_f32(largest + 4 * place, value)
            found = min(found + 1, r.k)
    return peek_f32(largest + 4 * (found - 1)) if found == r.k else np.float32(-np.inf)


@inline_kernel
def _worth(logit, repetition, subtracted):  # type: ignore[no-untyped-def]
    """A float32 that is no more than the logit after penalties."""
    value = np.float64(logit)
    value = value / repetition if value > 0 else value * repetition
    value -= subtracted
    return np.float32(value - abs(value) * 2.0**-22)


@operation
def _prefetch(typing_context, tiling, block, apart):  # type: ignore[no-untyped-def]
    """Asks for the lines of a block and of what lies apart."""
    format_, isa = tiling.value.format, tiling.value.isa

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, block, apart = values
        e = Emitter(builder, isa)
        for address, n_bytes in (
            (block, format_.block_bytes),
            (apart, format_.apart_block_bytes),
        ):
            for offset in range(0, n_bytes, LINE_BYTES):
                e.prefetch(address, offset, 2)
        return context.get_dummy_value()

    return types.void(tiling, types.int64, types.int64), codegen


@inline_kernel
def _compute(tiling, weights, tile, following, n_blocks, panels, logits):  # type: ignore[no-untyped-def]
    """Computes a tile's logits as GEMV does; asks for the memory of the following tile."""
    row_tiles = n_blocks // tile_blocks(tiling)
    place = weights + tile * row_tiles * tile_bytes(tiling)
    ahead = (following - tile) * row_tiles * tile_bytes(tiling)
    apart_ahead = (following - tile) * row_tiles * apart_tile_bytes(tiling)
    panel = panels
    totals = zero_totals(tiling)
    for i in range(row_tiles):
        block = place + header_bytes(tiling)
        apart = weights - (tile * row_tiles + i + 1) * apart_tile_bytes(tiling)
        for _ in range(tile_blocks(tiling)):
            _prefetch(tiling, block + ahead, apart - apart_ahead)
            totals = multiply_tile_block(tiling, place, block, apart, 0, panel, totals)
            block += block_bytes(tiling)
            apart += apart_block_bytes(tiling)
            panel += panel_block_bytes(tiling)
        place += tile_bytes(tiling)
    store_totals(tiling, totals, logits, 0, 1, 0, 0)


@exact_kernel
def compute_seeds(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Computes the logits of one chunk of the seeds, and how far the coarse ones were off."""
    a = screen_view(args)
    reach = peek_f32(a.factors)
    end = peek_i64(a.chosen)
    for i in range(chunk, end, a.n_chunks):
        tile = peek_i64(a.chosen + 16 + 8 * i)
        logits = a.logits + 4 * TILE_ROWS * tile
        following = peek_i64(a.chosen + 16 + 8 * min(i + a.n_chunks, end - 1))
        _compute(tiling, a.weights, tile, following, a.n_blocks, a.panels, logits)
        sums = coarse_sums(tiling, a.weights, tile, a.n_blocks, a.panels, a.factors, a.lines)
        store_errors(tiling, sums, reach, logits, a.errors + 8 * i)


@exact_kernel
def compute_survivors(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Computes the logits of one chunk of the other tiles that were chosen."""
    a = screen_view(args)
    end = peek_i64(a.chosen + 8)
    for i in range(peek_i64(a.chosen) + chunk, end, a.n_chunks):
        tile = peek_i64(a.chosen + 16 + 8 * i)
        logits = a.logits + 4 * TILE_ROWS * tile
        following = peek_i64(a.chosen + 16 + 8 * min(i + a.n_chunks, end - 1))
        _compute(tiling, a.weights, tile, following, a.n_blocks, a.panels, logits)
