"""The gated product: gate and up in one pass, and SwiGLU as soon as some columns of both are there.

output = silu(gate) * up goes into panels, for the product that comes next. Gate and up are one
matrix: the rows of up follow those of gate. A chunk takes the same tiles of both, an even number of
them, so that it has whole blocks of 32 columns, and goes on with them panel by panel: they are
still in the cache then.
"""

from dataclasses import dataclass

import numpy as np

from edgeqwen.formats.base import BLOCK_COLUMNS, TILE_ROWS, Tiling
from edgeqwen.formats.panel import Panel
from edgeqwen.kernels.gemm import multiply_many, tiling_of
from edgeqwen.kernels.gemv import multiply_one
from edgeqwen.kernels.panels import panel_block_bytes, panel_width, write_block
from edgeqwen.kernels.products import PRODUCT
from edgeqwen.simd.compile import exact_kernel, inline_kernel
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.ops import (
    divide,
    exp,
    isa_of,
    lanes,
    load_f32,
    part_of_token,
    splat_f32,
    store,
    zeros_f32,
)
from edgeqwen.simd.records import record, record_view
from edgeqwen.simd.token import Token

TILES_OF_BLOCK = BLOCK_COLUMNS // TILE_ROWS

GATED = record(
    *(PRODUCT.names or ()),  # of two ranges, gate and up
    "up_offset",  # bytes from gate to up in the output
    "hidden",  # panels of silu(gate) * up
    "hidden_blocks",  # intermediate_size / 32
)
gated_view = record_view(GATED)


@dataclass(frozen=True, slots=True)
class Gated(Token):
    """How gate and up are multiplied, and the panels that come of it."""

    tiling: Tiling
    panel: Panel

    @staticmethod
    def after_panel(gated, a, tiles, token, n_tokens):  # type: ignore[no-untyped-def]
        """Goes on with the outputs of a panel's tokens while they are in the cache."""
        _gate_tiles(panel_of(gated), a, tiles, token, n_tokens)

    @property
    def token_name(self) -> str:
        return f"Gated({self.tiling.token_name}, {self.panel.token_name})"

    @property
    def isa(self) -> Isa:
        return self.tiling.isa


panel_of = part_of_token("panel")


@inline_kernel
def gate_block(panel, gate, up, place, slot):  # type: ignore[no-untyped-def]
    """Writes silu(gate) * up of 32 columns of one token into a panel; it replaces the gate, too."""
    isa = isa_of(panel)
    one, zero = splat_f32(isa, np.float32(1)), zeros_f32(isa)
    for i in range(0, 4 * BLOCK_COLUMNS, 4 * lanes(isa)):
        x = load_f32(isa, gate + i)
        silu = divide(x, one + exp(zero - x))
        store(gate + i, silu * load_f32(isa, up + i))
    write_block(panel, gate, place, slot)


@inline_kernel
def _gate_tiles(panel, a, tiles, token, n_tokens):  # type: ignore[no-untyped-def]
    """Does so for the columns of some tiles, of ``n_tokens`` tokens from ``token`` on."""
    width = panel_width(panel)
    panel_bytes = a.hidden_blocks * panel_block_bytes(panel)
    for t in range(token, token + n_tokens):
        hidden = a.hidden + t // width * panel_bytes
        for block in range(tiles[0] // TILES_OF_BLOCK, tiles[1] // TILES_OF_BLOCK):
            gate = a.output + t * a.stride + 4 * BLOCK_COLUMNS * block
            place = hidden + block * panel_block_bytes(panel)
            gate_block(panel, gate, gate + a.up_offset, place, t % width)


@exact_kernel
def gated_gemv(gated, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Computes gate, up and what comes of them, for one token and a chunk of tiles."""
    a = gated_view(args)
    first = chunk * a.tiles_per_chunk
    end = min(first + a.tiles_per_chunk, a.n_tiles)
    panels = a.panels + worker * a.panels_of_worker
    for half in range(2):
        skipped = half * a.n_tiles
        multiply_one(tiling_of(gated), a, skipped + first, skipped + end, panels)
    _gate_tiles(panel_of(gated), a, (first, end), 0, 1)


@exact_kernel
def gated_gemm(gated, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Does so for all tokens of the step."""
    a = gated_view(args)
    first = chunk * a.tiles_per_chunk
    end = min(first + a.tiles_per_chunk, a.n_tiles)
    multiply_many(gated, a, first, end, a.scratch + worker * a.scratch_bytes)
