"""Vector operations for kernels: ``a * b + c`` on vectors, loads, stores, reductions, conversions.

A kernel takes an ISA token first and makes vectors from it; every other operation finds the
instruction set in the types of its arguments::

    total = zeros_f32(isa)
    for i in range(0, n, lanes(isa)):
        x = load_f32(isa, address + 4 * i)
        total = fma(x, x, total)
    return sum_lanes(total)

Addresses are int64 and aren't checked: they come from sizes validated when a file was opened.
"""

from collections.abc import Callable
from typing import Any

from edgeqwen.simd import exponential
from edgeqwen.simd.compile import operation, types
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import GENERIC, Isa
from edgeqwen.simd.llvm_ir import element_type, ir

Emit = Callable[..., Any]


def vector(element: str, isa: Any, multiple: int = 1) -> Any:
    return types.VectorType(element, isa.lanes * multiple, isa)


def _maker(element: str, emit: Emit, *parameters: str) -> Any:
    """Makes an operation ``f(isa, *parameters) -> vector of element``; parameters by type."""

    def typing(typing_context, isa, *arguments):  # type: ignore[no-untyped-def]
        if not isinstance(getattr(isa, "value", None), Isa):
            return None
        result = vector(element, isa.isa)

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            return emit(Emitter(builder, isa.isa), *values[1:])

        return result(isa, *(getattr(types, p) for p in parameters)), codegen

    return _with_arity(typing, len(parameters) + 1)


def _mapper(result: str, emit: Emit, arity: int = 1) -> Any:
    """Makes an operation ``f(*vectors) -> vector of result`` ("same": the type of the first)."""

    def typing(typing_context, *arguments):  # type: ignore[no-untyped-def]
        first = arguments[0]
        if not all(isinstance(a, types.VectorType) for a in arguments):
            return None
        type_ = first if result == "same" else vector(result, first.isa)

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            return emit(Emitter(builder, first.isa), *values)

        return type_(*arguments), codegen

    return _with_arity(typing, arity)


def _reducer(emit: Emit) -> Any:
    """Makes an operation ``f(vector) -> its element``."""

    def typing(typing_context, x):  # type: ignore[no-untyped-def]
        scalar = {"f32": types.float32, "i32": types.int32}[x.element]

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            return emit(Emitter(builder, x.isa), values[0])

        return scalar(x), codegen

    return operation(typing)


def _with_arity(typing: Emit, arity: int) -> Any:
    # Numba reads the number of parameters from the signature: *arguments would not do.
    if arity == 1:
        return operation(lambda typing_context, a: typing(typing_context, a))
    if arity == 2:
        return operation(lambda typing_context, a, b: typing(typing_context, a, b))
    if arity == 3:
        return operation(lambda typing_context, a, b, c: typing(typing_context, a, b, c))
    return operation(lambda typing_context, a, b, c, d: typing(typing_context, a, b, c, d))


load_f32 = _maker("f32", lambda e, a: e.load(e.f32v, a), "int64")
load_f16 = _maker("f32", lambda e, a: e.f16_to_f32(e.load(e.f16v, a)), "int64")
load_i32 = _maker("i32", lambda e, a: e.load(e.i32v, a), "int64")
splat_f32 = _maker("f32", lambda e, x: e.splat(x, e.f32v), "float32")
load_f32_splat = _maker("f32", lambda e, a: e.load_f32_splat(a), "int64")
zeros_f32 = _maker("f32", lambda e: ir.Constant(e.f32v, None))

fma = _mapper("same", lambda e, x, y, z: e.fma(x, y, z), 3)
maximum = _mapper("same", lambda e, x, y: e.max(x, y), 2)
minimum = _mapper("same", lambda e, x, y: e.min(x, y), 2)
absolute = _mapper("same", lambda e, x: e.unary("fabs", x))
rint = _mapper("same", lambda e, x: e.unary("rint", x))
exp2 = _mapper("same", exponential.exp2)
exp = _mapper("same", exponential.exp)
round_to_i32 = _mapper("i32", lambda e, x: e.b.fptosi(e.unary("rint", x), e.i32v))
divide = _mapper("same", lambda e, x, y: e.b.fdiv(x, y), 2)
# x where a < b, else y: lane by lane.
where_less = _mapper("same", lambda e, a, b, x, y: e.b.select(e.b.fcmp_ordered("<", a, b), x, y), 4)

sum_lanes = _reducer(lambda e, x: e.reduce(x, e.b.fadd if x.type.element == ir.F32 else e.b.add))
max_lanes = _reducer(lambda e, x: e.reduce(x, e.max))


def constant(read: Callable[[Any], int]) -> Any:
    """Makes an operation ``f(token) -> int64`` whose value is read from the token's type."""

    @operation
    def known(typing_context, token):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            return ir.I64(read(token))

        return types.int64(token), codegen

    return known


def zeros(type_of: Callable[[Any], Any]) -> Any:
    """Makes an operation ``f(token) -> value`` of zeros, whose type depends on the token."""

    @operation
    def zero(typing_context, token):  # type: ignore[no-untyped-def]
        type_ = type_of(token.value)

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            return Emitter(builder, token.value.isa).zero(context.get_value_type(type_))

        return type_(token), codegen

    return zero


lanes = constant(lambda token: token.isa.lanes)
"""The number of float32 lanes of a vector."""


def part_of_token(name: str) -> Any:
    """Makes an operation ``f(token) -> token`` that gives a token's own token of that name."""

    @operation
    def part(typing_context, token):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            return context.get_dummy_value()

        return types.TokenType(getattr(token.value, name))(token), codegen

    return part


@operation
def isa_of(typing_context, token):  # type: ignore[no-untyped-def]
    """The ISA token of a token that knows its instruction set."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return context.get_dummy_value()

    return types.TokenType(token.isa)(token), codegen


@operation
def store(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Stores a vector at an address of any alignment."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        Emitter(builder, value.isa).store(values[1], values[0])
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


def _store_as(convert: Callable[[Emitter, Value], Value]) -> Any:
    """Makes an operation that converts a vector and stores it."""

    @operation
    def stored(typing_context, address, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            e = Emitter(builder, value.isa)
            e.store(convert(e, values[1]), values[0])
            return context.get_dummy_value()

        return types.void(types.int64, value), codegen

    return stored


store_as_f16 = _store_as(lambda e, vector: e.f32_to_f16(vector))
"""Rounds a float32 vector to float16 and stores it."""
store_as_bf16 = _store_as(lambda e, vector: e.f32_to_bf16(vector))
"""Rounds a float32 vector to bfloat16 and stores it."""
store_as_i8 = _store_as(lambda e, vector: e.i32_to_bytes(vector))
"""Stores an int32 vector as bytes; the caller keeps the values within [-128, 127]."""


@operation
def mask_tail(typing_context, value, count, fill):  # type: ignore[no-untyped-def]
    """Replaces the lanes at and after ``count`` (int32) by ``fill`` (float32)."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, value.isa)
        lane = ir.Constant(e.i32v, list(range(value.count)))
        kept = builder.icmp_signed("<", lane, e.splat(values[1], e.i32v))
        return builder.select(kept, values[0], e.splat(values[2], e.f32v))

    return value(value, types.int32, types.float32), codegen


def _scalar_access(element: str, type_: str) -> tuple[Any, Any]:
    @operation
    def peek(typing_context, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            loaded = builder.load(builder.inttoptr(values[0], _llvm(element).as_pointer()))
            loaded.align = 1
            return loaded

        return getattr(types, type_)(types.int64), codegen

    @operation
    def poke(typing_context, address, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            stored = builder.store(
                values[1], builder.inttoptr(values[0], _llvm(element).as_pointer())
            )
            stored.align = 1
            return context.get_dummy_value()

        return types.void(types.int64, getattr(types, type_)), codegen

    return peek, poke


def _llvm(element: str) -> Any:
    return {"i64": ir.I64, "f64": ir.DoubleType()}.get(element) or element_type(element)


peek_f32, poke_f32 = _scalar_access("f32", "float32")
peek_f64, poke_f64 = _scalar_access("f64", "float64")
peek_u8, poke_u8 = _scalar_access("i8", "uint8")
peek_i16, poke_i16 = _scalar_access("i16", "int16")
peek_u16, poke_u16 = _scalar_access("i16", "uint16")
peek_i32, poke_i32 = _scalar_access("i32", "int32")
peek_u32, poke_u32 = _scalar_access("i32", "uint32")
peek_i64, poke_i64 = _scalar_access("i64", "int64")


@operation
def f32_from_bits(typing_context, bits):  # type: ignore[no-untyped-def]
    """The float32 whose bits are the lower half of an int64."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return builder.bitcast(builder.trunc(values[0], ir.I32), ir.F32)

    return types.float32(types.int64), codegen


@operation
def square_root(typing_context, x):  # type: ignore[no-untyped-def]
    """The square root of a float32, correctly rounded."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, GENERIC)
        return builder.call(e.function("llvm.sqrt.f32", ir.F32, ir.F32), values)

    return types.float32(types.float32), codegen


@operation
def scatter_as_f16(typing_context, address, stride, value):  # type: ignore[no-untyped-def]
    """Rounds a float32 vector to float16 and stores its elements ``stride`` bytes apart."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, value.isa)
        _scatter(builder, values[0], values[1], e.f32_to_f16(values[2]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), codegen


@operation
def scatter_as_bf16(typing_context, address, stride, value):  # type: ignore[no-untyped-def]
    """Rounds a float32 vector to bfloat16 and stores its elements ``stride`` bytes apart."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, value.isa)
        _scatter(builder, values[0], values[1], e.f32_to_bf16(values[2]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), codegen


@operation
def scatter(typing_context, address, stride, value):  # type: ignore[no-untyped-def]
    """Stores the elements of a vector ``stride`` bytes apart."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _scatter(builder, *values)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), codegen


def _scatter(builder: Any, address: Any, stride: Any, value: Any) -> None:
    for lane in range(value.type.count):
        element = builder.extract_element(value, ir.I32(lane))
        place = builder.inttoptr(address, value.type.element.as_pointer())
        stored = builder.store(element, place)
        stored.align = 1
        address = builder.add(address, stride)
