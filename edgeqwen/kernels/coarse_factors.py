"""What all rows' coarse logits have in common: read from one token's panel, once for all rows."""

import math

import numpy as np

from edgeqwen.kernels.coarse import (
    DEVIATIONS,
    FACTORS_AT,
    KEPT_LINES,
    LINE_BYTES,
    MOST_LINES,
    coarse_view,
    factor_bytes,
    line_view,
)
from edgeqwen.kernels.products import (
    apart_block_bytes,
    apart_tile_bytes,
    block_bytes,
    header_bytes,
    panel_block_bytes,
    tile_blocks,
    tile_bytes,
)
from edgeqwen.simd.compile import exact_kernel, inline_kernel
from edgeqwen.simd.ops import constant, peek_f32, peek_i64, peek_u8, poke_f32, poke_i64

# A line is looked up if it causes this part of the errors' variance, or more.
LEAST_SHARE = 1 / 24
# What is left of a line's variance then: coarse logits are still rounded to float32.
ROUNDING = 2.0**-16

_groups = constant(lambda t: t.value.format.groups)
_lines = constant(lambda t: t.value.format.lines)
_step = constant(lambda t: t.value.format.step)
# Whole numbers: a constant is an int64.
_doubled_centre = constant(lambda t: round(2 * t.value.format.centre))
_variance_twelvefold = constant(lambda t: round(12 * t.value.format.variance))


@exact_kernel
def coarse_factors(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Writes the factors of all blocks, and the lines that are looked up in every tile."""
    a = coarse_view(args)
    largest = 0.0
    for i in range(a.n_blocks):
        panel = a.panels + i * panel_block_bytes(tiling)
        scale = np.float64(peek_f32(panel + 32))
        for group in range(_groups(tiling)):
            squares = 0.0
            for line in range(_lines(tiling)):
                squares += scale * scale * _moments(tiling, panel, line, group)[1]
            # Not so for a NaN, which is in the block's other factors, too.
            if squares > largest:
                largest = squares
    poke_f32(a.factors, np.float32(math.sqrt(largest)))
    poke_i64(a.kept_lines, peek_i64(a.kept_lines) + 1)
    inverse = 1 / largest if largest > 0 else 0.0
    _choose_lines(tiling, args, inverse)
    _write_factors(tiling, args, inverse)


@inline_kernel
def _moments(tiling, panel, line, group):  # type: ignore[no-untyped-def]
    """The sum of a group's activations whose weights' low bits are in a line, and of squares."""
    n = 8 // _lines(tiling) // _groups(tiling)
    total, squares = 0, 0
    for vector in range(n * group, n * group + n):
        first = panel + 4 * (line + _lines(tiling) * vector)
        for address in range(first, first + 4):
            x = int(np.int8(peek_u8(address)))
            total += x
            squares += x * x
    return total, squares


@inline_kernel
def _choose_lines(tiling, args, inverse):  # type: ignore[no-untyped-def]
    """Lists the lines that cause most of the errors' variance, and marks them as causing none."""
    a = coarse_view(args)
    n = a.n_blocks * _lines(tiling)
    whole = 0.0
    for i in range(n):
        block, line = i // _lines(tiling), i % _lines(tiling)
        panel = a.panels + block * panel_block_bytes(tiling)
        scale = np.float64(peek_f32(panel + 32))
        share = 0.0
        for group in range(_groups(tiling)):
            size = peek_f32(a.sizes + 4 * (block * _groups(tiling) + group))
            share += scale * scale * inverse * _moments(tiling, panel, line, group)[1] * size
        poke_f32(a.shares + 4 * i, np.float32(share))
        whole += share
    chosen = 0
    while chosen < MOST_LINES:
        best, most = -1, np.float32(whole * LEAST_SHARE)
        for i in range(n):
            share = peek_f32(a.shares + 4 * i)
            if share > most:
                best, most = i, share
        if best < 0:
            break
        poke_f32(a.shares + 4 * best, np.float32(-1))
        _write_line(tiling, args, best, a.lines + 8 + chosen * LINE_BYTES)
        chosen += 1
    poke_i64(a.lines, chosen)


@inline_kernel
def _write_line(tiling, args, i, record):  # type: ignore[no-untyped-def]
    """Fills in the record of the i-th line of a row of tiles."""
    a = coarse_view(args)
    block, line = i // _lines(tiling), i % _lines(tiling)
    tile, place = block // tile_blocks(tiling), block % tile_blocks(tiling)
    last = a.n_blocks // tile_blocks(tiling) - 1
    panel = a.panels + block * panel_block_bytes(tiling)
    view = line_view(record)
    view.tile = tile * tile_bytes(tiling)
    view.block = header_bytes(tiling) + place * block_bytes(tiling)
    view.line = (
        (last - tile) * apart_tile_bytes(tiling) + place * apart_block_bytes(tiling) + 64 * line
    )
    view.panel = panel + 4 * line
    slot = _kept(a.kept_lines, i)
    view.is_new = peek_i64(slot) != i + 1
    poke_i64(slot, i + 1)
    poke_i64(slot + 8, peek_i64(a.kept_lines))
    view.kept = a.kept + (slot - a.kept_lines - 8) // 16 * (64 * a.n_tiles)
    scale = peek_f32(panel + 32)
    poke_f32(record + FACTORS_AT, scale)
    for group in range(_groups(tiling)):
        total = _moments(tiling, panel, line, group)[0]
        shift = np.float32(-_doubled_centre(tiling) * total) / np.float32(2) * scale
        poke_f32(record + FACTORS_AT + 4 + 4 * group, shift)


@inline_kernel
def _kept(kept_lines, i):  # type: ignore[no-untyped-def]
    """Returns the address of the record of the i-th line, or of what was used longest ago."""
    oldest = kept_lines + 8
    for slot in range(kept_lines + 8, kept_lines + 8 + 16 * KEPT_LINES, 16):
        if peek_i64(slot) == i + 1:
            return slot
        if peek_i64(slot + 8) < peek_i64(oldest + 8):
            oldest = slot
    return oldest


@inline_kernel
def _write_factors(tiling, args, inverse):  # type: ignore[no-untyped-def]
    """Writes what ``ScreenedFormat.emit_coarse`` reads, with the spread of all other lines."""
    a = coarse_view(args)
    variance = _variance_twelvefold(tiling) / 12 * DEVIATIONS * DEVIATIONS
    for i in range(a.n_blocks):
        panel = a.panels + i * panel_block_bytes(tiling)
        factors = a.factors + 4 + i * factor_bytes(tiling)
        scale = peek_f32(panel + 32)
        poke_f32(factors, scale * np.float32(_step(tiling)))
        square = np.float64(scale) * scale * inverse * variance
        for group in range(_groups(tiling)):
            total, squares = 0, 0.0
            for line in range(_lines(tiling)):
                some, their_squares = _moments(tiling, panel, line, group)
                total += some
                is_known = peek_f32(a.shares + 4 * (i * _lines(tiling) + line)) < 0
                squares += their_squares * (ROUNDING if is_known else 1.0)
            centre = _doubled_centre(tiling) - 16 * _step(tiling)
            shift = np.float32(centre * total) / np.float32(2) * scale
            poke_f32(factors + 4 + 4 * group, shift)
            place = factors + 4 + 4 * _groups(tiling) + 4 * group
            poke_f32(place, np.float32(square * squares))
