"""Emits vector code: a thin layer over LLVM's IR builder that knows an instruction set.

Micro-kernels are Python functions over an ``Emitter``: their loops run while the code is
generated, so that everything is unrolled and stays in registers. All of it is portable LLVM IR
except ``Emitter.dot`` and ``Emitter.lookup``, where instruction sets differ (``simd/dot.py``,
``simd/running_dots.py``, ``simd/lookup.py``).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeqwen.simd.dot import DOTS
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.llvm_ir import ir
from edgeqwen.simd.lookup import LOOKUPS
from edgeqwen.simd.target_features import declare_features

# A value of the code being generated. Other rooms handle these and builders, but import no LLVM.
Value = Any
Builder = Any


class Emitter:
    """Emits operations on vectors of ``isa.lanes`` values at the builder's position."""

    def __init__(self, builder: Builder, isa: Isa) -> None:
        self.b, self.isa = builder, isa
        declare_features(builder.function, isa)
        n = isa.lanes
        self.f32v, self.i32v = ir.VectorType(ir.F32, n), ir.VectorType(ir.I32, n)
        self.f16v, self.i16v = ir.VectorType(ir.F16, n), ir.VectorType(ir.I16, 2 * n)
        self.i8v = ir.VectorType(ir.I8, 4 * n)
        self.half_bits = ir.VectorType(ir.I16, n)  # float16 or bfloat16 as integers

    # Memory: addresses are int64 values, offsets are bytes known at generation time.

    def at(self, address: Value, offset: int) -> Value:
        return self.b.add(address, ir.I64(offset)) if offset else address

    def pointer(self, address: Value, type_: Any) -> Value:
        return self.b.inttoptr(address, type_.as_pointer())

    def load(self, type_: Any, address: Value, offset: int = 0) -> Value:
        value = self.b.load(self.pointer(self.at(address, offset), type_))
        value.align = 1
        return value

    def store(self, value: Value, address: Value, offset: int = 0) -> None:
        stored = self.b.store(value, self.pointer(self.at(address, offset), value.type))
        stored.align = 1

    def prefetch(self, address: Value, offset: int, level: int) -> None:
        """Asks for the line at an address, which needn't exist, into the cache of level 1 or 2."""
        bytes_ = ir.I8.as_pointer()
        function = self.function("llvm.prefetch.p0", ir.VoidType(), bytes_, ir.I32, ir.I32, ir.I32)
        pointer = self.b.inttoptr(self.at(address, offset), bytes_)
        # It is data, to be read; LLVM's "locality" counts the other way.
        self.b.call(function, [pointer, ir.I32(0), ir.I32(4 - level), ir.I32(1)])

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        found = self.b.module.globals.get(name)
        if found is None:
            found = ir.Function(self.b.module, ir.FunctionType(result, arguments), name)
        return found

    # Building vectors.

    def splat(self, value: Value, type_: Any) -> Value:
        undefined = ir.Constant(type_, ir.Undefined)
        first = self.b.insert_element(undefined, value, ir.I32(0))
        zeros = ir.Constant(ir.VectorType(ir.I32, type_.count), None)
        return self.b.shuffle_vector(first, undefined, zeros)

    def constant(self, value: float, type_: Any) -> Any:
        if isinstance(type_.element, ir.FloatType):
            value = float(np.float32(value))
        return ir.Constant(type_, [value] * type_.count)

    def f32(self, value: float) -> Any:
        return self.constant(value, self.f32v)

    def load_f32_splat(self, address: Value, offset: int = 0) -> Value:
        return self.splat(self.load(ir.F32, address, offset), self.f32v)

    def load_i32_splat(self, address: Value, offset: int = 0) -> Value:
        return self.splat(self.load(ir.I32, address, offset), self.i32v)

    # What tiles hold for each of their 16 rows, side by side; ``row`` is a part's first.

    def rows(self, address: Value, row: Value, n_bytes: int) -> Value:
        """The address of a part's first row, where every row takes ``n_bytes``."""
        return self.b.add(address, self.b.mul(row, self.i64(n_bytes)))

    def load_f16_rows(self, address: Value, row: Value, offset: int = 0) -> Value:
        """Loads a float16 for every row of a part, as float32."""
        return self.f16_to_f32(self.load(self.f16v, self.rows(address, row, 2), offset))

    def load_bytes_rows(self, address: Value, row: Value, offset: int = 0) -> Value:
        """Loads a byte for every row of a part: <lanes x i8>."""
        return self.load(ir.VectorType(ir.I8, self.isa.lanes), self.rows(address, row, 1), offset)

    def i64(self, value: int) -> Value:
        """An address or offset that is known when code is generated."""
        return ir.I64(value)

    def zero(self, type_: Any) -> Value:
        """All zeros, of a vector or of an aggregate of vectors."""
        return ir.Constant(type_, None)

    def scratch(self, n_floats: int) -> Value:
        """Returns the address of float32 scratch memory in the function's own frame."""
        with self.b.goto_entry_block():
            memory = self.b.alloca(ir.ArrayType(ir.F32, n_floats))
        return self.b.ptrtoint(memory, ir.I64)

    def every_fourth(self, x: Value, first: int) -> Value:
        """The bytes first, first + 4, ... of <4*lanes x i8>: one column of four."""
        order = ir.Constant(self.i32v, [4 * i + first for i in range(self.isa.lanes)])
        return self.b.shuffle_vector(x, x, order)

    # Arithmetic.

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        t = x.type
        f = self.function(f"llvm.fma.v{t.count}f32", t, t, t, t)
        return self.b.call(f, [x, y, z])

    def max(self, x: Value, y: Value) -> Value:
        """max(x, y), one instruction on x86; y where either is NaN."""
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def min(self, x: Value, y: Value) -> Value:
        """min(x, y), one instruction on x86; y where either is NaN."""
        return self.b.select(self.b.fcmp_ordered("<", x, y), x, y)

    def unary(self, name: str, x: Value) -> Value:
        """llvm.{fabs,rint,floor,sqrt}."""
        f = self.function(f"llvm.{name}.v{x.type.count}f32", x.type, x.type)
        return self.b.call(f, [x])

    def rotate(self, x: Value, by: int) -> Value:
        n = x.type.count
        order = ir.Constant(ir.VectorType(ir.I32, n), [(i + by) % n for i in range(n)])
        return self.b.shuffle_vector(x, x, order)

    def reduce(self, x: Value, combine: Any) -> Value:
        """Combines all lanes by halving: the order of additions is the same on every run."""
        by = x.type.count // 2
        while by:
            x = combine(x, self.rotate(x, by))
            by //= 2
        return self.b.extract_element(x, ir.I32(0))

    # Conversions.

    def f16_to_f32(self, x: Value) -> Value:
        if self.isa.f16:
            return self.b.fpext(x, self.f32v)
        b, i32v = self.b, self.i32v
        h = b.zext(b.bitcast(x, self.half_bits), i32v)
        sign = b.shl(b.and_(h, self.constant(0x8000, i32v)), self.constant(16, i32v))
        magnitude = b.shl(b.and_(h, self.constant(0x7FFF, i32v)), self.constant(13, i32v))
        # Moving the exponent by multiplying makes denormals right, too.
        scaled = b.fmul(b.bitcast(magnitude, self.f32v), self.f32(2.0**112))
        special = b.icmp_signed(">=", magnitude, self.constant(0x7C00 << 13, i32v))
        bits = b.bitcast(scaled, i32v)
        bits = b.select(special, b.or_(magnitude, self.constant(0x7F800000, i32v)), bits)
        return b.bitcast(b.or_(bits, sign), self.f32v)

    def f32_to_f16(self, x: Value) -> Value:
        """Rounds to nearest even; beyond the range of float16 gives an infinity."""
        if self.isa.f16:
            return self.b.fptrunc(x, self.f16v)
        b, i32v = self.b, self.i32v
        bits = b.bitcast(x, i32v)
        sign = b.lshr(b.and_(bits, self.constant(-(2**31), i32v)), self.constant(16, i32v))
        magnitude = b.and_(bits, self.constant(0x7FFFFFFF, i32v))
        # Denormal results: adding 0.5 puts the rounded bits into the low end of the mantissa.
        small = b.fadd(b.bitcast(magnitude, self.f32v), self.f32(0.5))
        small = b.sub(b.bitcast(small, i32v), self.constant(0x3F000000, i32v))
        odd = b.and_(b.lshr(magnitude, self.constant(13, i32v)), self.constant(1, i32v))
        normal = b.add(b.add(magnitude, self.constant(0xFFF - (112 << 23), i32v)), odd)
        normal = b.lshr(normal, self.constant(13, i32v))
        is_small = b.icmp_signed("<", magnitude, self.constant(113 << 23, i32v))
        is_large = b.icmp_signed(">=", magnitude, self.constant(143 << 23, i32v))
        is_nan = b.icmp_signed(">", magnitude, self.constant(0x7F800000, i32v))
        result = b.select(is_small, small, normal)
        result = b.select(is_large, self.constant(0x7C00, i32v), result)
        result = b.select(is_nan, self.constant(0x7E00, i32v), result)
        halves = b.trunc(b.or_(result, sign), self.half_bits)
        return b.bitcast(halves, self.f16v)

    def bf16_to_f32(self, x: Value) -> Value:
        """Widens ``half_bits`` that hold bfloat16."""
        wide = self.b.shl(self.b.zext(x, self.i32v), self.constant(16, self.i32v))
        return self.b.bitcast(wide, self.f32v)

    def f32_to_bf16(self, x: Value) -> Value:
        """Rounds to nearest even, as ``half_bits``; a NaN stays one."""
        b, i32v = self.b, self.i32v
        bits, sixteen = b.bitcast(x, i32v), self.constant(16, i32v)
        odd = b.and_(b.lshr(bits, sixteen), self.constant(1, i32v))
        rounded = b.add(bits, b.add(odd, self.constant(0x7FFF, i32v)))
        # Rounding could carry a NaN's bits into an infinity, or beyond.
        quiet = b.or_(bits, self.constant(0x400000, i32v))
        result = b.select(b.fcmp_unordered("uno", x, x), quiet, rounded)
        return b.trunc(b.lshr(result, sixteen), self.half_bits)

    def i32_to_f32(self, x: Value) -> Value:
        return self.b.sitofp(x, self.f32v)

    def bytes_to_f32(self, x: Value, *, signed: bool) -> Value:
        """Widens <lanes x i8>."""
        wide = self.b.sext(x, self.i32v) if signed else self.b.zext(x, self.i32v)
        return self.i32_to_f32(wide)

    # Bytes.

    def i32_to_bytes(self, x: Value) -> Value:
        """Keeps the lowest byte of each lane."""
        return self.b.trunc(x, ir.VectorType(ir.I8, self.isa.lanes))

    def and_bytes(self, x: Value, mask: int) -> Value:
        return self.b.and_(x, self.constant(mask, x.type))

    def shift_bytes(self, x: Value, by: int) -> Value:
        """Shifts bytes left, or right where ``by`` is negative.

        Pairs of bytes are shifted as int16: the caller masks away what came over from the other.
        """
        if by == 0:
            return x
        shift = self.b.shl if by > 0 else self.b.lshr
        wide = shift(self.b.bitcast(x, self.i16v), self.constant(abs(by), self.i16v))
        return self.b.bitcast(wide, x.type)

    def lookup(self, table: Sequence[int], indices: Value) -> Value:
        """Maps bytes below 16 to the table's 16 values, where instruction sets differ, too."""
        return LOOKUPS[self.isa.lookup](self, table, indices)

    # The dot product, where instruction sets differ.

    def dot(
        self,
        start: Value,
        weights: Sequence[Value],
        activations: Sequence[Value],
        limit: int,
        signed: bool,
    ) -> Value:
        """Sums (weight + isa.dot_excess) * activation over groups of four int8 values, exactly.

        ``weights`` and ``activations`` are as many <4*lanes x i8>; the activations are in
        [-127, 127], the weights in [-limit, limit] if ``signed``, else unsigned in [0, limit].
        Returns ``start`` plus the sums, <lanes x i32>.
        """
        weights = [self.dot_weight(w, limit, signed) for w in weights]
        limit, signed = self.isa.dot_range(limit, signed)
        return DOTS[self.isa.dot](self, start, weights, activations, limit, signed)

    def dot_weight(self, weight: Value, limit: int, signed: bool) -> Value:
        """Adds ``isa.dot_excess`` to bytes; from then on, ``isa.dot_range`` is theirs."""
        if not self.isa.dot_excess(limit, signed):
            return weight
        # Flipping the highest bit moves the range by half of a byte's.
        return self.b.xor(weight, self.constant(-128, weight.type))

    def halves_of_words(self, x: Value) -> list[Value]:
        """Widens bytes to int16: the first and third of every four, the second and fourth."""
        wide, eight = self.b.bitcast(x, self.i16v), self.constant(8, self.i16v)
        return [self.b.ashr(self.b.shl(wide, eight), eight), self.b.ashr(wide, eight)]

    def fence(self, values: Sequence[Value]) -> list[Value]:
        """Returns the same values, of which LLVM believes that they could be others (x86).

        What needs the results is computed after what the values need, whatever LLVM's scheduler
        thinks of it; it costs no instruction.
        """
        kinds = [v.type for v in values]
        vector = "v" if self.isa.registers == 32 else "x"  # "x" are the first 16 registers
        letters = [vector if isinstance(kind, ir.VectorType) else "r" for kind in kinds]
        constraints = [f"={letter}" for letter in letters] + [str(i) for i in range(len(values))]
        result = ir.LiteralStructType(kinds)
        passed = ir.InlineAsm(
            ir.FunctionType(result, kinds), "", ",".join(constraints), side_effect=True
        )
        struct = self.b.call(passed, list(values))
        return [self.b.extract_value(struct, i) for i in range(len(values))]

    def call(self, name: str, result: Any, *arguments: Value) -> Value:
        f = self.function(name, result, *(a.type for a in arguments))
        return self.b.call(f, arguments)
