"""SwiGLU by itself, where gate and up are of two formats: silu(gate) * up, into panels."""

from edgeqwen.kernels.gated import gate_block
from edgeqwen.kernels.panels import panel_block_bytes, panel_width
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_kernel
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


@exact_kernel
def swiglu(token, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Writes silu(gate) * up for some blocks of the tokens of one panel."""
    a = swiglu_view(args)
    n_tokens = state_view(a.state).n_tokens
    width = panel_width(token)
    panel_index = chunk // a.chunks_per_panel
    first_block = (chunk % a.chunks_per_panel) * a.blocks_per_chunk
    end_block = min(first_block + a.blocks_per_chunk, a.n_blocks)
    first = panel_index * width
    panel = a.panels + panel_index * a.n_blocks * panel_block_bytes(token)
    for t in range(first, min(first + width, n_tokens)):
        gates = a.gate_up + t * a.stride
        ups = gates + a.up_offset
        for block in range(first_block, end_block):
            gate, place = gates + 128 * block, panel + block * panel_block_bytes(token)
            gate_block(token, gate, ups + 128 * block, place, t - first)
