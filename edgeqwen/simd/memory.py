"""What kernels tell the system about memory that they will use, or are done with."""

import mmap
import sys
from typing import Any

from edgeqwen.simd.atomics import declared
from edgeqwen.simd.compile import operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.isa import GENERIC
from edgeqwen.simd.llvm_ir import ir
from edgeqwen.simd.machine_code import MADVISE

# Linux; Python has no names for them. Before 5.14 the system refuses, and nothing is lost.
_POPULATE_READ, _POPULATE_WRITE = 22, 23


def _advice(number: int | None) -> Any:
    """Makes the operation f(address, n_bytes) that gives a piece of advice, or does nothing.

    The address is that of a page.
    """

    @operation
    def advise(typing_context, address, n_bytes):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            if number is not None:
                pointer, i32 = ir.I8.as_pointer(), ir.I32
                convention = ir.FunctionType(i32, [pointer, ir.I64, i32])
                start = builder.inttoptr(values[0], pointer)
                function = declared(builder.module, MADVISE, convention)
                builder.call(function, [start, values[1], i32(number)])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return advise


@operation
def prefetch(typing_context, address):  # type: ignore[no-untyped-def]
    """Asks for the line at an address, which needn't exist, into the second-level cache."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        Emitter(builder, GENERIC).prefetch(values[0], 0, 2)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


_is_linux = sys.platform == "linux"

release_pages = _advice(getattr(mmap, "MADV_DONTNEED", None))
"""Lets the system take back whole pages of a mapped file; reading loads them again."""

populate_to_read = _advice(_POPULATE_READ if _is_linux else None)
"""Puts pages that will be read in their places, all at once: each would stop its first reader."""

populate_to_write = _advice(_POPULATE_WRITE if _is_linux else None)
"""Does so with pages that will be written."""
