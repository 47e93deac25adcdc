"""Turns declarations (``simd/compile.py``) into what Numba knows, and compiles them.

Only what has to compile imports this: Numba takes longer to import than a small model to load. What
is declared stays as it is. A function that is compiled is a copy, in whose globals the declarations
are replaced by Numba's objects.
"""

import builtins
import functools
import types as python_types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numba import njit
from numba.core import compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from edgeqwen.simd import operators  # noqa: F401 - registers a + b and the like on vectors
from edgeqwen.simd.array_cache import ArrayKernelCache
from edgeqwen.simd.compile import INT, InlineKernel, Operation, TokenMethod
from edgeqwen.simd.machine_code import LIBRARY_FUNCTIONS, MADVISE, YIELD, MachineCode, prepare
from edgeqwen.simd.types import TokenType, int64, none

# Not "nnan" or "ninf": plain fastmath=True would let LLVM drop the checks for NaN and infinity.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
}


def compile_kernel(
    function: Callable[..., Any], exact: bool, signature: Sequence[Any]
) -> MachineCode:
    """Compiles a kernel for tokens and ``INT``.

    Raises TypeError for one that returns something else than nothing or an int64, or that calls
    what another process need not have.
    """
    result = _compiled(function, exact, signature)
    name = function.__qualname__
    if result.signature.return_type not in (int64, none):
        raise TypeError(
            f"{name} returns {result.signature.return_type}, expected nothing or an int64; a "
            "function of other values is an array_kernel"
        )
    library = result.library
    if library.has_dynamic_globals:
        raise TypeError(f"{name} refers to a run-time address and can't be cached")
    foreign = sorted(set(_called(library)) - LIBRARY_FUNCTIONS - {YIELD, MADVISE})
    if foreign:
        raise TypeError(f"{name} calls {', '.join(foreign)}, which not every process has")
    symbol = result.fndesc.llvm_func_name
    return MachineCode(
        symbol, result.signature.return_type == int64, library._get_compiled_object()
    )


def assembly(kernel: Any, *signature: Any) -> str:
    """Returns the machine code of a kernel as text, for tests and benchmarks."""
    text: str = _compiled(kernel.function, kernel.exact, signature).library.get_asm_str()
    return text


def dispatcher(function: Callable[..., Any], exact: bool) -> Any:
    """Returns Numba's own function for one of arrays and numbers of any kind."""
    prepare()
    made = njit(**_options(exact))(numba_function(function))
    made._cache = ArrayKernelCache(function)
    return made


def _options(exact: bool) -> dict[str, Any]:
    return _OPTIONS | {"fastmath": False if exact else FASTMATH}


@global_compiler_lock  # type: ignore[untyped-decorator]
def _compiled(function: Callable[..., Any], exact: bool, signature: Sequence[Any]) -> Any:
    prepare()
    flags = compiler.Flags()
    # Nobody calls a kernel but by its address.
    alone = {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    cpu_target.options.parse_as_flags(flags, _options(exact) | alone)
    typing_context, context = cpu_target.typing_context, cpu_target.target_context
    typing_context.refresh()
    context.refresh()
    arguments = tuple(int64 if s is INT else TokenType(s) for s in signature)
    return compiler.compile_extra(
        typing_context, context, numba_function(function), arguments, None, flags, {}
    )


def _called(library: Any) -> Iterator[str]:
    """Yields the functions that the code calls and doesn't hold."""
    for function in library._final_module.functions:
        if function.is_declaration and not function.name.startswith("llvm."):
            yield function.name


def numba_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a copy of a function whose globals hold what Numba knows."""
    code = function.__code__
    known = function.__globals__
    globals_ = {name: _known(known[name]) for name in _names(code) if name in known}
    globals_ |= {"__builtins__": builtins, "__name__": known.get("__name__")}
    closure = tuple(
        python_types.CellType(_known(cell.cell_contents)) for cell in function.__closure__ or ()
    )
    copy = python_types.FunctionType(
        code, globals_, function.__name__, function.__defaults__, closure
    )
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return copy


def _names(code: python_types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            yield from _names(constant)


def _known(value: Any) -> Any:
    return _declared(value) if isinstance(value, Operation | InlineKernel | TokenMethod) else value


@functools.cache
def _declared(value: Operation | InlineKernel | TokenMethod) -> Any:
    """Returns what Numba knows a declaration as: always the same object."""
    if isinstance(value, Operation):
        return intrinsic(value.typing)
    if isinstance(value, InlineKernel):
        return njit(inline="always", **_options(value.exact))(numba_function(value.function))
    return _token_method(value)


def _token_method(method: TokenMethod) -> Any:
    def stub(*arguments: Any) -> None:
        raise NotImplementedError(method.name)

    # Written into its callers, for the reason that ``InlineKernel`` gives.
    @overload(stub, inline="always", strict=False)  # type: ignore[untyped-decorator]
    def choose(*arguments: Any) -> Any:
        return numba_function(getattr(arguments[0].value, method.name))

    return stub
