"""A kernel around ``Emitter.dot``, specialised by the range of the weights."""

from dataclasses import dataclass

from edgeqwen.simd.compile import kernel, operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.token import Token

GROUPS = 8
"""Groups of four columns that one call of ``dot`` sums, as in a block of 32 columns."""


@dataclass(frozen=True, slots=True)
class Dot(Token):
    """What ``dot`` is asked for: the token that specialises the kernel."""

    isa: Isa
    limit: int
    signed: bool

    def __str__(self) -> str:
        return f"{self.isa.name}, {'signed' if self.signed else 'unsigned'} {self.limit}"

    @property
    def token_name(self) -> str:
        isa = f"{self.isa.name}/{self.isa.lanes}"
        return f"Dot({isa}, {self.limit}, signed {self.signed})"

    @property
    def lowest(self) -> int:
        """The smallest weight that fits an int8 and the limit."""
        return max(-self.limit, -128) if self.signed else 0

    @property
    def highest(self) -> int:
        return min(self.limit, 127) if self.signed else self.limit


@operation
def dot_block(typing_context, dot, start, weights, activations, out):  # type: ignore[no-untyped-def]
    """start, out: int32 [lanes]; weights: bytes [8][lanes][4]; activations: int8 [8][4]."""
    d = dot.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, start, weights, activations, out = values
        e = Emitter(builder, d.isa)
        w = [e.load(e.i8v, weights, 4 * d.isa.lanes * g) for g in range(GROUPS)]
        words = [e.load_i32_splat(activations, 4 * g) for g in range(GROUPS)]
        a = [builder.bitcast(word, e.i8v) for word in words]
        e.store(e.dot(e.load(e.i32v, start), w, a, d.limit, d.signed), out)
        return context.get_dummy_value()

    i = types.int64
    return types.void(dot, i, i, i, i), codegen


@kernel
def dots(dot, start, weights, activations, out, n, lanes):  # type: ignore[no-untyped-def]
    """``n`` blocks, one after the other."""
    for i in range(n):
        dot_block(
            dot,
            start + 4 * lanes * i,
            weights + 32 * lanes * i,
            activations + 32 * i,
            out + 4 * lanes * i,
        )
