"""The one decorator behind which every compiled function of edgeqwen stands."""

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from edgeqwen.simd.cache import KernelCache

# Not "nnan" or "ninf": plain fastmath=True would let LLVM drop the checks for NaN and infinity.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}


def kernel(function: Callable[..., Any], *, exact: bool = False) -> Any:
    """Compiles a module-level function lazily, once per signature, without the GIL, and caches it.

    ``exact`` keeps IEEE arithmetic operation by operation, for results that are a convention of a
    file format, or that two kernels must agree on. Integer division by zero and out-of-range
    indexes are not checked inside: callers validate every size, offset and type first.
    ``edgeqwen.simd.cache`` keeps the result.
    """
    dispatcher = njit(fastmath=False if exact else FASTMATH, **_OPTIONS)(function)
    dispatcher._cache = KernelCache(function)
    return dispatcher


def inline_kernel(function: Callable[..., Any], *, exact: bool = False) -> Any:
    """Like ``kernel``, for small functions that kernels call: compiled into them, not alone.

    They must be written into their callers before LLVM sees them. Numba would compile them first
    and link the result, and LLVM rewrites a function's addresses when it makes machine code of it:
    of ``base + offset``, either may become the pointer. A caller's constant offset is then one into
    nothing, and all code that leads there is removed.
    """
    fastmath: object = False if exact else FASTMATH
    return njit(fastmath=fastmath, inline="always", **_OPTIONS)(function)


exact_kernel = functools.partial(kernel, exact=True)
"""``kernel`` with IEEE arithmetic operation by operation, as it is written."""


def compile_kernel(dispatcher: Any, *signature: types.Type) -> None:
    """Compiles (or loads) one signature of a kernel."""
    dispatcher.compile(signature)


def kernel_address(dispatcher: Any, *signature: types.Type) -> int:
    """Compiles (or loads) one signature of a kernel and returns the address of its machine code.

    ``call_kernel`` calls it.
    """
    dispatcher.compile(signature)
    result = dispatcher.overloads[signature]
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


@intrinsic
def call_kernel(typing_context, function, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Calls a kernel f(token, args, chunk, worker) by its address.

    Numba's native convention is ``int32 f(result*, exception**, ...arguments)``, where a token is
    a null pointer. The status that it returns is ignored: kernels don't raise.
    """

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        pointer, i64 = ir.IntType(8).as_pointer(), ir.IntType(64)
        parameters = [pointer.as_pointer(), pointer.as_pointer(), pointer, i64, i64, i64]
        convention = ir.FunctionType(ir.IntType(32), parameters)
        result = cgutils.alloca_once(builder, pointer)
        exception = cgutils.alloca_once(builder, pointer)
        function = builder.inttoptr(values[0], convention.as_pointer())
        builder.call(function, [result, exception, ir.Constant(pointer, None), *values[1:]])
        return context.get_dummy_value()

    i = types.int64
    return types.void(i, i, i, i), codegen
