"""Activations on their way into a matrix product: written into panels, as each format reads them."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgeqwen.formats.base import IntegerFormat
from edgeqwen.simd.emitter import F32, Emitter


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
            row = builder.add(block, builder.mul(slot, ir.IntType(64)(128)))
            for i, value in enumerate(x):
                e.store(value, row, 4 * i * t.isa.lanes)
        return context.get_dummy_value()

    i = types.int64
    return types.void(tiling, i, i, i), codegen


def _write_integers(
    e: Emitter, x: list[ir.Value], block: ir.Value, slot: ir.Value, n_tokens: int, offset: int
) -> None:
    b, i64 = e.b, ir.IntType(64)
    largest, not_finite = e.f32(0.0), e.f32(0.0)
    for value in x:
        largest = e.max(e.unary("fabs", value), largest)
        not_finite = e.fma(value, e.f32(0.0), not_finite)
    maximum = e.reduce(largest, e.max)
    # The reciprocal of anything smaller would overflow; such a block is zero.
    too_small = b.fcmp_ordered("<", maximum, F32(1e-36))
    inverse = b.select(too_small, F32(0.0), b.fdiv(F32(127.0), maximum))
    scale = b.fadd(b.fdiv(maximum, F32(127.0)), e.reduce(not_finite, b.fadd))
    total = ir.Constant(e.i32v, None)
    row = b.add(block, b.mul(slot, i64(32)))
    for i, value in enumerate(x):
        q = b.fptosi(e.unary("rint", b.fmul(value, e.splat(inverse, e.f32v))), e.i32v)
        total = b.add(total, q)
        e.store(b.trunc(q, ir.VectorType(ir.IntType(8), e.isa.lanes)), row, i * e.isa.lanes)
    place = b.add(block, b.mul(slot, i64(4)))
    e.store(scale, place, 32 * n_tokens)
    if offset:
        correction = b.mul(e.reduce(total, b.add), ir.IntType(32)(offset))
        e.store(correction, place, 36 * n_tokens)
