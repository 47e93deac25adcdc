"""Functions of the system that the kernels of benchmarks call by their addresses: clock and sleep.

Kernels of the package call nothing by its name that a process need not have.
"""

import ctypes

from llvmlite import ir

from edgeqwen.simd.compile import operation, types

_I64 = ir.IntType(64)


def address_of(name: str) -> int:
    """Returns the address of a function of the C library. Raises AttributeError without it."""
    function = getattr(ctypes.CDLL(None), name)
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@operation
def call_with_one(typing_context, function, a):  # type: ignore[no-untyped-def]
    """Calls ``int f(int64)`` at an address."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return _call(context, builder, *values)

    return types.void(types.int64, types.int64), codegen


@operation
def call_with_two(typing_context, function, a, b):  # type: ignore[no-untyped-def]
    """Calls ``int f(int64, int64)`` at an address."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        return _call(context, builder, *values)

    return types.void(types.int64, types.int64, types.int64), codegen


def _call(context, builder, function, *arguments):  # type: ignore[no-untyped-def]
    type_ = ir.FunctionType(ir.IntType(32), [_I64] * len(arguments))
    builder.call(builder.inttoptr(function, type_.as_pointer()), arguments)
    return context.get_dummy_value()
