"""Levels: the numbers that a code of a block type stands for, before the scale.

A ``Levels`` is a token: kernels are compiled for its Numba type, which carries the instruction set
and, for the types with a codebook, the codebook. Whole numbers need no specialisation of their
own: their bounds are arguments.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from edgeqwen.simd.compile import operation, types
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.token import Token


@dataclass(frozen=True, slots=True)
class Levels(Token):
    """Whole numbers, or the sorted values of a codebook."""

    isa: Isa
    codebook: tuple[int, ...] = ()

    @property
    def token_name(self) -> str:
        return f"Levels({self.codebook}, {self.isa.name}/{self.isa.lanes})"


@operation
def nearest(typing_context, levels, x, lowest, highest):  # type: ignore[no-untyped-def]
    """The level nearest to each lane of x; whole ones are within [lowest, highest]."""
    if not isinstance(x, types.VectorType):
        return None
    codebook = levels.value.codebook

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, x.isa)
        _, value, lowest, highest = values
        if codebook:
            return _nearest_of(e, codebook, value)
        return e.unary("rint", e.min(e.max(value, lowest), highest))

    return x(levels, x, x, x), codegen


def _nearest_of(e: Emitter, codebook: Sequence[int], x: Value) -> Value:
    found = e.f32(codebook[0])
    for lower, level in itertools.pairwise(codebook):
        above = e.b.fcmp_ordered(">", x, e.f32((lower + level) / 2))
        found = e.b.select(above, e.f32(level), found)
    return found
