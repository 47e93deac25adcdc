"""SwiGLU: silu(gate) * up, into panels."""

import numpy as np

from edgeqwen.kernels.panels import panel_block_bytes, panel_width, write_block
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.ops import (
    divide,
    exp,
    isa_of,
    lanes,
    load_f32,
    splat_f32,
    store,
    zeros_f32,
)
from edgeqwen.simd.records import record, record_view

SWIGLU = record(
    "state",
    "gate_up",  # float32 [n_tokens][stride / 4]: gate, then up at ``up_offset`` bytes
    "stride",
    "up_offset",
    "n_blocks",  # intermediate_size / 32
    "blocks_per_chunk",
    "chunks_per_panel",  # ceil(n_blocks / blocks_per_chunk)
    "panels",
)
swiglu_view = record_view(SWIGLU)


@kernel
def swiglu(token, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Writes silu(gate) * up for some blocks of the tokens of one panel."""
    a = swiglu_view(args)
    n_tokens = state_view(a.state).n_tokens
    isa = isa_of(token)
    width = panel_width(token)
    panel_index = chunk // a.chunks_per_panel
    first_block = (chunk % a.chunks_per_panel) * a.blocks_per_chunk
    end_block = min(first_block + a.blocks_per_chunk, a.n_blocks)
    first = panel_index * width
    panel = a.panels + panel_index * a.n_blocks * panel_block_bytes(token)
    one, zero = splat_f32(isa, np.float32(1)), zeros_f32(isa)
    for t in range(first, min(first + width, n_tokens)):
        gates = a.gate_up + t * a.stride
        ups = gates + a.up_offset
        for block in range(first_block, end_block):
            # The product replaces the gate, from where it is written into the panel.
            for i in range(128 * block, 128 * (block + 1), 4 * lanes(isa)):
                gate = load_f32(isa, gates + i)
                silu = divide(gate, one + exp(zero - gate))
                store(gates + i, silu * load_f32(isa, ups + i))
            place = panel + block * panel_block_bytes(token)
            write_block(token, gates + 128 * block, place, t - first)
