"""Atomic operations, spinning and yielding: what the thread team is made of."""

from typing import Any

from edgeqwen.simd.compile import operation, types
from edgeqwen.simd.cpu import machine
from edgeqwen.simd.llvm_ir import ir
from edgeqwen.simd.machine_code import YIELD


def declared(module: Any, name: str, type_: Any) -> Any:
    """Returns a function that is defined elsewhere."""
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, type_, name)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.I64.as_pointer())


@operation
def atomic_load(typing_context, address):  # type: ignore[no-untyped-def]
    """Loads an int64 and sees what the thread that stored it had written before.

    Sequentially consistent, like the stores: of two threads that each raise a flag and then look
    at the other's, one sees it. On x86 that costs nothing; ARM's acquiring load would not do.
    """

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_pointer(builder, values[0]), "seq_cst", 8)

    return types.int64(types.int64), codegen


@operation
def atomic_store(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Stores an int64, sequentially consistent."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        builder.store_atomic(values[1], _pointer(builder, values[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@operation
def atomic_add(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Adds to an int64 and returns what it was before."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", _pointer(builder, values[0]), values[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@operation
def atomic_exchange(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Replaces an int64 and returns what it was before."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("xchg", _pointer(builder, values[0]), values[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@operation
def compare_and_swap(typing_context, address, expected, desired):  # type: ignore[no-untyped-def]
    """Stores ``desired`` if the int64 is ``expected``; returns what it was before."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        pair = builder.cmpxchg(
            _pointer(builder, values[0]), values[1], values[2], "acq_rel", "acquire"
        )
        return builder.extract_value(pair, 0)

    return types.int64(types.int64, types.int64, types.int64), codegen


@operation
def pause(typing_context):  # type: ignore[no-untyped-def]
    """Tells the CPU that this thread spins (x86 pause, ARM yield)."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        kind, module, void = machine(), builder.module, ir.VoidType()
        if kind in ("x86_64", "amd64"):
            function = declared(module, "llvm.x86.sse2.pause", ir.FunctionType(void, []))
            builder.call(function, [])
        elif kind in ("aarch64", "arm64"):
            hint = ir.FunctionType(void, [ir.I32])
            builder.call(declared(module, "llvm.aarch64.hint", hint), [ir.I32(1)])
        return context.get_dummy_value()

    return types.void(), codegen


@operation
def yield_processor(typing_context):  # type: ignore[no-untyped-def]
    """Lets another thread run on this processor, if one is waiting."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        type_ = ir.FunctionType(ir.I32, [])
        builder.call(declared(builder.module, YIELD, type_), [])
        return context.get_dummy_value()

    return types.void(), codegen
