"""Activations on their way into a matrix product: written into panels, as its format reads them."""

from edgeqwen.formats.panel import Panel
from edgeqwen.formats.sums import SUM_START
from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_kernel, operation, types
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.llvm_ir import ir
from edgeqwen.simd.ops import constant
from edgeqwen.simd.records import record, record_view

panel_width = constant(lambda t: t.value.n_tokens)
panel_block_bytes = constant(lambda t: t.value.block_bytes)


@operation
def write_block(typing_context, token, source, panel_block, slot):  # type: ignore[no-untyped-def]
    """Writes 32 float32 at ``source`` into token ``slot`` of a panel's block.

    For integer formats: q = round_to_even(x * 127 / max|x|), scale = max|x| / 127, and the sums of
    q that the panel has room for. A NaN or infinity makes the scale NaN, so that it reaches the
    logits instead of vanishing.
    """
    p = token.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, source, block, slot = values
        e = Emitter(builder, p.isa)
        x = [e.load(e.f32v, source, 4 * i) for i in range(0, 32, p.isa.lanes)]
        if p.integers:
            _write_integers(e, p, x, block, slot)
        else:
            row = builder.add(block, builder.mul(slot, e.i64(128)))
            for i, value in enumerate(x):
                e.store(value, row, 4 * i * p.isa.lanes)
        return context.get_dummy_value()

    i = types.int64
    return types.void(token, i, i, i), codegen


def _write_integers(e: Emitter, panel: Panel, x: list[Value], block: Value, slot: Value) -> None:
    b, n_tokens = e.b, panel.n_tokens
    largest, not_finite = e.f32(0.0), e.f32(0.0)
    for value in x:
        largest = e.max(e.unary("fabs", value), largest)
        not_finite = e.fma(value, e.f32(0.0), not_finite)
    maximum = e.reduce(largest, e.max)
    # The reciprocal of anything smaller would overflow; such a block is zero.
    too_small = b.fcmp_ordered("<", maximum, ir.F32(1e-36))
    inverse = b.select(too_small, ir.F32(0.0), b.fdiv(ir.F32(127.0), maximum))
    scale = b.fadd(b.fdiv(maximum, ir.F32(127.0)), e.reduce(not_finite, b.fadd))
    totals = [e.zero(e.i32v)] * panel.groups
    row = b.add(block, b.mul(slot, e.i64(32)))
    for i, value in enumerate(x):
        q = b.fptosi(e.unary("rint", b.fmul(value, e.splat(inverse, e.f32v))), e.i32v)
        group = i * panel.groups // len(x)
        totals[group] = b.add(totals[group], q)
        e.store(e.i32_to_bytes(q), row, i * e.isa.lanes)
    place = b.add(block, b.mul(slot, e.i64(4)))
    e.store(scale, place, 32 * n_tokens)
    for group, total in enumerate(totals):
        at = (36 + 4 * group) * n_tokens
        if panel.scaled_sums:
            e.store(b.fmul(scale, b.sitofp(e.reduce(total, b.add), ir.F32)), place, at)
        elif panel.offset:
            correction = b.mul(e.reduce(total, b.add), ir.I32(panel.offset))
            e.store(b.add(correction, ir.I32(SUM_START)), place, at)


PANELIZE = record(
    "state",
    "x",  # float32 [n_tokens][32 * n_blocks]
    "n_blocks",
    "panels",
)
panelize_view = record_view(PANELIZE)


@exact_kernel
def panelize(token, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Writes activations as they are into panels: chunk = panel."""
    a = panelize_view(args)
    n_blocks, width = a.n_blocks, panel_width(token)
    first = chunk * width
    panel = a.panels + chunk * n_blocks * panel_block_bytes(token)
    for i in range(first, min(first + width, state_view(a.state).n_tokens)):
        for block in range(n_blocks):
            source = a.x + 128 * (i * n_blocks + block)
            write_block(token, source, panel + block * panel_block_bytes(token), i - first)
