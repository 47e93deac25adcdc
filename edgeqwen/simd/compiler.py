"""Turns declarations (``simd/compile.py``) into what Numba knows, and compiles them.

Only what has to compile imports this: Numba takes longer to import than a small model to load. What
is declared stays as it is. A function that is compiled is a copy, in whose globals the declarations
are replaced by Numba's objects.
"""

import builtins
import functools
import inspect
import types as python_types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite.binding import Linkage
from numba import njit
from numba.core import compiler
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from edgeqwen.simd import operators  # noqa: F401 - registers a + b and the like on vectors
from edgeqwen.simd.array_cache import ArrayKernelCache
from edgeqwen.simd.compile import INT, InlineKernel, Operation
from edgeqwen.simd.machine_code import LIBRARY_FUNCTIONS, MADVISE, YIELD, MachineCode, prepare
from edgeqwen.simd.target_features import declare_features
from edgeqwen.simd.types import TokenType, int64, none

# Not "nnan" or "ninf": plain fastmath=True would let LLVM drop the checks for NaN and infinity.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
}
_ENVIRONMENT = "_ZN08NumbaEnv"
# Nobody calls a kernel but by its address, or a part of one but from there.
_ALONE = {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


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
    made = njit(**_options(exact))(numba_function(function, exact))
    made._cache = ArrayKernelCache(function)
    return made


def _options(exact: bool) -> dict[str, Any]:
    return _OPTIONS | {"fastmath": False if exact else FASTMATH}


@global_compiler_lock  # type: ignore[untyped-decorator]
def _compiled(function: Callable[..., Any], exact: bool, signature: Sequence[Any]) -> Any:
    prepare()
    flags = compiler.Flags()
    cpu_target.options.parse_as_flags(flags, _options(exact) | _ALONE)
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    arguments = tuple(int64 if s is INT else TokenType(s) for s in signature)
    return _compile(numba_function(function, exact), arguments, flags, None)


def _compile(function: Callable[..., Any], arguments: Any, flags: Any, library: Any) -> Any:
    context = cpu_target.typing_context, cpu_target.target_context
    return compiler.compile_extra(*context, function, arguments, None, flags, {}, library)


def _called(library: Any) -> Iterator[str]:
    """Yields the functions that the code calls and doesn't hold."""
    for function in library._final_module.functions:
        if function.is_declaration and not function.name.startswith("llvm."):
            yield function.name


def numba_function(function: Callable[..., Any], exact: bool) -> Callable[..., Any]:
    """Returns a copy of a function whose globals hold what Numba knows, of calls of its kind."""
    code = function.__code__
    known = function.__globals__
    globals_ = {name: _known(known[name], exact) for name in _names(code) if name in known}
    globals_ |= {"__builtins__": builtins, "__name__": known.get("__name__")}
    closure = tuple(
        python_types.CellType(_known(cell.cell_contents, exact))
        for cell in function.__closure__ or ()
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


def _known(value: Any, exact: bool) -> Any:
    if isinstance(value, Operation):
        return _operation(value)
    return _call(value, exact) if isinstance(value, InlineKernel) else value


# What Numba knows a declaration as is always the same object: it keeps what it learns of each.


@functools.cache
def _operation(value: Operation) -> Any:
    return intrinsic(value.typing)


@functools.cache
def _call(value: InlineKernel, exact: bool) -> Any:
    signature = inspect.signature(value.function)
    first = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_ONLY)

    def typing(typing_context: Any, *arguments: Any) -> Any:
        part = _part(value.chosen(arguments), exact, arguments)

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            isa = getattr(arguments[0], "isa", None) if arguments else None
            if isa is not None:
                # LLVM writes the part in, whatever its caller may use of the CPU.
                declare_features(builder.function, isa)
            context.active_code_library.add_linking_library(part.library)
            return context.call_internal(builder, part.fndesc, part.signature, values)

        return part.signature.return_type(*arguments), codegen

    parameters = [first, *signature.parameters.values()]
    typing.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    # Errors name it.
    typing.__name__, typing.__qualname__ = value.function.__name__, value.function.__qualname__
    return intrinsic(typing)


def _part(function: Callable[..., Any], exact: bool, arguments: tuple[Any, ...]) -> Any:
    """Compiles an inline kernel as far as LLVM's code, for arguments of these types."""
    flags = compiler.Flags()
    cpu_target.options.parse_as_flags(flags, _options(exact) | _ALONE | {"forceinline": True})
    flags.no_compile = True
    codegen = cpu_target.target_context.codegen()
    library = _PartLibrary(codegen, function.__qualname__)
    return _compile(numba_function(function, exact), arguments, flags, library)


class _PartLibrary(CPUCodeLibrary):  # type: ignore[misc]
    """Code that is written into that of others, and made machine code of only there.

    To make machine code of it first would spoil it for others: LLVM rewrites addresses then.
    """

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                # Dropped where it has been written in; of two parts' copies, one stays.
                function.linkage = "linkonce_odr"
        for variable in self._final_module.global_variables:
            if variable.name.startswith(_ENVIRONMENT) and not variable.is_declaration:
                # What a Python function would find its globals by; no kernel looks.
                variable.linkage = "internal"
        self._finalized = True
