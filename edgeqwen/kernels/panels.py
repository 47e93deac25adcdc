"""Activations on their way into a matrix product: written into panels, as its format reads them."""

from numba import types
from numba.extending import intrinsic

from edgeqwen.formats.base import IntegerFormat
from edgeqwen.kernels.products import panel_block_bytes, panel_tokens
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.emitter import F32, I32, Emitter, Value
from edgeqwen.simd.records import record, record_view


@intrinsic
def write_block(typing_context, tiling, source, panel_block, slot):  # type: ignore[no-untyped-def]
    """Writes 32 float32 at ``source`` into token ``slot`` of a panel's block.

    For integer formats: q = round_to_even(x * 127 / max|x|), scale = max|x| / 127, and the sum of
    q times the format's panel offset. A NaN or infinity makes the scale NaN, so that it reaches
    the logits instead of vanishing.
    """
    t = tiling.tiling

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, source, block, slot = values
        e = Emitter(builder, t.isa)
        x = [e.load(e.f32v, source, 4 * i) for i in range(0, 32, t.isa.lanes)]
        if isinstance(t.format, IntegerFormat):
            _write_integers(e, x, block, slot, t.n_tokens, t.format.panel_offset(t.isa))
        else:
            row = builder.add(block, builder.mul(slot, e.i64(128)))
            for i, value in enumerate(x):
                e.store(value, row, 4 * i * t.isa.lanes)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, i, i, i), codegen


def _write_integers(
    e: Emitter, x: list[Value], block: Value, slot: Value, n_tokens: int, offset: int
) -> None:
    b = e.b
    largest, not_finite = e.f32(0.0), e.f32(0.0)
    for value in x:
        largest = e.max(e.unary("fabs", value), largest)
        not_finite = e.fma(value, e.f32(0.0), not_finite)
    maximum = e.reduce(largest, e.max)
    # The reciprocal of anything smaller would overflow; such a block is zero.
    too_small = b.fcmp_ordered("<", maximum, F32(1e-36))
    inverse = b.select(too_small, F32(0.0), b.fdiv(F32(127.0), maximum))
    scale = b.fadd(b.fdiv(maximum, F32(127.0)), e.reduce(not_finite, b.fadd))
    total = e.zero(e.i32v)
    row = b.add(block, b.mul(slot, e.i64(32)))
    for i, value in enumerate(x):
        q = b.fptosi(e.unary("rint", b.fmul(value, e.splat(inverse, e.f32v))), e.i32v)
        total = b.add(total, q)
        e.store(e.i32_to_bytes(q), row, i * e.isa.lanes)
    place = b.add(block, b.mul(slot, e.i64(4)))
    e.store(scale, place, 32 * n_tokens)
    if offset:
        correction = b.mul(e.reduce(total, b.add), I32(offset))
        e.store(correction, place, 36 * n_tokens)


PANELIZE = record(
    "state",
    "x",  # float32 [n_tokens][32 * n_blocks]
    "n_blocks",
    "panels",
)
panelize_view = record_view(PANELIZE)


@kernel
def panelize(tiling, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Writes activations as they are into panels: chunk = panel."""
    a = panelize_view(args)
    n_blocks, width = a.n_blocks, panel_tokens(tiling)
    first = chunk * width
    panel = a.panels + chunk * n_blocks * panel_block_bytes(tiling)
    for token in range(first, min(first + width, state_view(a.state).n_tokens)):
        for block in range(n_blocks):
            source = a.x + 128 * (token * n_blocks + block)
            write_block(tiling, source, panel + block * panel_block_bytes(tiling), token - first)
