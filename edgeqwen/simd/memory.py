"""Memory that kernels give back to the system."""

import mmap

from edgeqwen.simd.atomics import declared
from edgeqwen.simd.compile import operation, types
from edgeqwen.simd.llvm_ir import ir
from edgeqwen.simd.machine_code import MADVISE


@operation
def release_pages(typing_context, address, n_bytes):  # type: ignore[no-untyped-def]
    """Lets the system take back whole pages of a mapped file; reading loads them again.

    Only where ``mmap`` has MADV_DONTNEED.
    """

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        pointer, i32 = ir.I8.as_pointer(), ir.I32
        convention = ir.FunctionType(i32, [pointer, ir.I64, i32])
        advice = i32(getattr(mmap, "MADV_DONTNEED", 0))
        start = builder.inttoptr(values[0], pointer)
        builder.call(declared(builder.module, MADVISE, convention), [start, values[1], advice])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
