"""The one decorator behind which every compiled function of edgeqwen stands."""

from collections.abc import Callable
from typing import Any

from numba import njit, types

from edgeqwen.simd.cache import KernelCache

# Not "nnan" or "ninf": plain fastmath=True would let LLVM drop the checks for NaN and infinity.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a module-level function lazily, once per signature, without the GIL, and caches it.

    Integer division by zero and out-of-range indexes are not checked inside: callers validate
    every size, offset and type first. See ``edgeqwen.simd.cache`` for where the result is kept.
    """
    dispatcher = njit(nogil=True, error_model="numpy", boundscheck=False, fastmath=FASTMATH)(
        function
    )
    dispatcher._cache = KernelCache(function)
    return dispatcher


def inline_kernel(function: Callable[..., Any]) -> Any:
    """Like ``kernel``, for small functions that kernels call: inlined by LLVM, never cached alone."""
    return njit(nogil=True, error_model="numpy", boundscheck=False, fastmath=FASTMATH)(function)


def kernel_address(dispatcher: Any, *signature: types.Type) -> int:
    """Compiles (or loads) one signature of a kernel and returns the address of its machine code.

    The function follows Numba's native convention:
    ``int32 f(result*, excinfo**, ...arguments)``; see ``edgeqwen.executor.tape``.
    """
    dispatcher.compile(signature)
    result = dispatcher.overloads[signature]
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))
