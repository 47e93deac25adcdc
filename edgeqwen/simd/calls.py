"""Calling kernels by their addresses, from kernels."""

from edgeqwen.simd.compile import operation, types
from edgeqwen.simd.llvm_ir import ir


@operation
def call_kernel(typing_context, function, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Calls a kernel f(token, args, chunk, worker) by its address.

    Numba's native convention is ``int32 f(result*, exception**, ...arguments)``, where a token is
    a null pointer. The status that it returns is ignored: kernels don't raise.
    """

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        pointer, i64 = ir.I8.as_pointer(), ir.I64
        parameters = [pointer.as_pointer(), pointer.as_pointer(), pointer, i64, i64, i64]
        convention = ir.FunctionType(ir.I32, parameters)
        # Not in the loop that calls: a stack would grow with each turn.
        with builder.goto_entry_block():
            result, exception = builder.alloca(pointer), builder.alloca(pointer)
        function = builder.inttoptr(values[0], convention.as_pointer())
        builder.call(function, [result, exception, ir.Constant(pointer, None), *values[1:]])
        return context.get_dummy_value()

    i = types.int64
    return types.void(i, i, i, i), codegen
