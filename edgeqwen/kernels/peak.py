"""How fast a core multiplies, at most: products of what is in registers already.

Nothing is loaded, unpacked or scaled. Integers are multiplied as an instruction set's products of
4-bit weights are: by one instruction, or by the sequence that takes its place. Attention and
weights of 16 and 32 bits multiply float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeqwen.simd.compile import kernel, operation, types
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.ops import constant
from edgeqwen.simd.records import record, record_view
from edgeqwen.simd.running_dots import UnsignedDots
from edgeqwen.simd.token import Token

GROUPS = 8
"""Groups of four columns in a block of 32, whose products are summed together."""
LARGEST_WEIGHT = 15


@dataclass(frozen=True, slots=True)
class Peak(Token):
    """An instruction set, and whether integers or float32 are multiplied: the kernel's token."""

    isa: Isa
    integers: bool

    @property
    def token_name(self) -> str:
        kind = "integers" if self.integers else "floats"
        return f"Peak({self.isa.name}/{self.isa.lanes}, {kind})"

    @property
    def accumulates(self) -> bool:
        """Whether one instruction multiplies and adds to the sum."""
        return not self.integers or self.isa.dot in ("vpdpbusd", "sdot")

    @property
    def n_sums(self) -> int:
        """How many sums stand side by side, so that none waits for its own last addition."""
        if not self.accumulates:
            # A product and a sum on its way take registers for each of them.
            return 4
        return self.isa.registers - 4

    @property
    def n_right(self) -> int:
        """Vectors on the right-hand side: one for each sum where LLVM would merge products."""
        return 1 if self.accumulates else self.n_sums

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one step: of GROUPS vectors of bytes, or one of float32."""
        per_vector = 4 * GROUPS if self.integers else 1
        return per_vector * self.isa.lanes * self.n_sums

    @property
    def vector_bytes(self) -> int:
        return 4 * self.isa.lanes


MULTIPLY = record(
    "n_steps",
    "left",  # weights, bytes below 16, or float32: [2][GROUPS] vectors, all the same
    "right",  # activations, int8, or float32: n_right vectors
    "sums",  # int32 or float32 [chunks][n_sums][lanes], to which the products are added
)
multiply_view = record_view(MULTIPLY)

sums_bytes = constant(lambda t: t.value.n_sums * t.value.vector_bytes)
left_bytes = constant(lambda t: GROUPS * t.value.vector_bytes)


def _vectors_type(peak: Peak, n: int) -> Any:
    element = "i32" if peak.integers else "f32"
    return types.UniTuple(types.VectorType(element, peak.isa.lanes, peak.isa), n)


def _loads(count: Callable[[Peak], int]) -> Any:
    """Makes an operation ``f(peak, address) -> tuple``: so many vectors that lie side by side."""

    @operation
    def load(typing_context, peak, address):  # type: ignore[no-untyped-def]
        p = peak.value
        type_ = _vectors_type(p, count(p))

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            e = Emitter(builder, p.isa)
            vectors = e.zero(context.get_value_type(type_))
            for i in range(count(p)):
                loaded = e.load(e.i32v if p.integers else e.f32v, values[1], i * p.vector_bytes)
                vectors = builder.insert_value(vectors, loaded, i)
            return vectors

        return type_(peak, types.int64), codegen

    return load


load_sums = _loads(lambda p: p.n_sums)
load_right = _loads(lambda p: p.n_right)
load_left = _loads(lambda p: 1)


@operation
def store_sums(typing_context, peak, sums, address):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, peak.value.isa)
        for i in range(sums.count):
            e.store(builder.extract_value(values[1], i), values[2], i * peak.value.vector_bytes)
        return context.get_dummy_value()

    return types.void(peak, sums, types.int64), codegen


@operation
def step(typing_context, peak, sums, left, right, left_address):  # type: ignore[no-untyped-def]
    """Returns the sums plus the products of one step; only plain vector code loads the left."""
    p = peak.value

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, sums_, left_, right_, address = values
        e = Emitter(builder, p.isa)
        old = [builder.extract_value(sums_, i) for i in range(p.n_sums)]
        factors = [builder.extract_value(right_, i) for i in range(p.n_right)]
        factor = builder.extract_value(left_, 0)
        if p.integers:
            new = _integer_products(e, p, old, factor, factors, address)
        else:
            new = [e.fma(factor, factors[0], sum_) for sum_ in old]
        for i, sum_ in enumerate(new):
            sums_ = builder.insert_value(sums_, sum_, i)
        return sums_

    return sums(peak, sums, left, right, types.int64), codegen


def _integer_products(
    e: Emitter, p: Peak, sums: list[Value], weight: Value, words: Sequence[Value], address: Value
) -> list[Value]:
    """Emits the products of GROUPS vectors of weights, summed as the instruction set does it."""
    weight = e.b.bitcast(weight, e.i8v)
    activations = [e.b.bitcast(word, e.i8v) for word in words]
    if p.accumulates:
        for _ in range(GROUPS):
            sums = [e.dot(s, [weight], activations, LARGEST_WEIGHT, False) for s in sums]
        return sums
    if p.isa.dot == "vpmaddubsw":
        dots = UnsignedDots(e, p.n_sums, LARGEST_WEIGHT)
        for _ in range(GROUPS):
            # LLVM must take the weight for another each time, or it would multiply only once.
            weight, address = e.fence([weight, address])
            dots.add(weight, activations)
        return [e.b.add(s, dot) for s, dot in zip(sums, dots.result(), strict=True)]
    # There is no fence for every machine: weights come from the first-level cache.
    weights = [e.load(e.i8v, address, g * p.vector_bytes) for g in range(GROUPS)]
    return [
        e.dot(s, weights, [a] * GROUPS, LARGEST_WEIGHT, False)
        for s, a in zip(sums, activations, strict=True)
    ]


@kernel
def multiply(peak, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Multiplies ``n_steps`` times and adds to the chunk's sums."""
    a = multiply_view(args)
    n_steps, weights, place = a.n_steps, a.left, a.sums + chunk * sums_bytes(peak)
    left, right, sums = load_left(peak, weights), load_right(peak, a.right), load_sums(peak, place)
    for i in range(n_steps):
        # Two places that hold the same: what is loaded changes, for all that LLVM knows.
        sums = step(peak, sums, left, right, weights + (i & 1) * left_bytes(peak))
    store_sums(peak, sums, place)
