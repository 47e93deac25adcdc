"""RMSNorm, from the residual stream into panels."""

import numpy as np

from edgeqwen.kernels.panels import panel_block_bytes, panel_width, write_block
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_kernel
from edgeqwen.simd.ops import (
    f32_from_bits,
    fma,
    isa_of,
    lanes,
    load_f32,
    splat_f32,
    square_root,
    store,
    sum_lanes,
    zeros_f32,
)
from edgeqwen.simd.records import record, record_view

NORM = record(
    "state",
    "x",  # float32 [n_tokens][hidden_size]
    "n_blocks",  # hidden_size / 32
    "weight",  # float32 [hidden_size]
    "epsilon",  # the bits of a float32
    "normed",  # float32 scratch [n_tokens][hidden_size]
    "panels",  # of the product that comes next
    "last_only",  # 1: only the last token, into slot 0
    "worker_bytes",  # if not 0: each thread has its own ``normed`` and ``panels``, so far apart
)
norm_view = record_view(NORM)


@exact_kernel
def norm(token, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Writes x / sqrt(mean(x**2) + epsilon) * weight for the tokens of one panel."""
    a = norm_view(args)
    n_tokens, n_blocks = state_view(a.state).n_tokens, a.n_blocks
    isa = isa_of(token)
    size = 32 * n_blocks
    width = panel_width(token)
    first = chunk * width
    end = min(first + width, n_tokens)
    if a.last_only != 0:
        first, end = n_tokens - 1, n_tokens
    panel = a.panels + worker * a.worker_bytes + chunk * n_blocks * panel_block_bytes(token)
    for i in range(first, end):
        x = a.x + 4 * size * i
        out = a.normed + worker * a.worker_bytes + 4 * size * (i - first)
        if a.worker_bytes == 0:
            out += 4 * size * first
        squares = zeros_f32(isa)
        for k in range(0, size, lanes(isa)):
            v = load_f32(isa, x + 4 * k)
            squares = fma(v, v, squares)
        mean = sum_lanes(squares) / np.float32(size)
        root = square_root(mean + f32_from_bits(a.epsilon))
        inverse = splat_f32(isa, np.float32(1) / root)
        for k in range(0, size, lanes(isa)):
            store(out + 4 * k, load_f32(isa, x + 4 * k) * inverse * load_f32(isa, a.weight + 4 * k))
        for block in range(n_blocks):
            place = panel + block * panel_block_bytes(token)
            write_block(token, out + 128 * block, place, i - first)
