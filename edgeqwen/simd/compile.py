"""The decorators behind which every compiled function of edgeqwen stands. They only declare it.

Importing Numba takes longer than a small model takes to load, and machine code that was kept needs
no compiler: a kernel's is looked for in the cache first, and loaded without it
(``simd/machine_code.py``). Only where there is none does ``simd/compiler.py`` import Numba, turn
declarations into what it knows, and compile.
"""

import ctypes
import functools
import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgeqwen.simd.cache import CacheFile, read_kernel, write_kernel
from edgeqwen.simd.machine_code import load
from edgeqwen.simd.token import Token

INT = "int64"
"""The argument of a kernel that is no token: an address or an integer."""

compilations: list[str] = []
"""The kernels that this process had to compile, because no cache had them."""


class _NumbaTypes:
    """``numba.types``, and what ``simd/types.py`` adds to them; imported at the first use.

    For code that runs while kernels are compiled, and only there.
    """

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module("edgeqwen.simd.types"), name)
        setattr(self, name, value)
        return value


types = _NumbaTypes()


class Operation:
    """Code that kernels call and that emits LLVM instructions in place: a Numba intrinsic.

    ``typing`` gets a typing context and the arguments' types, and returns a signature and a
    function (context, builder, signature, values) that emits.
    """

    def __init__(self, typing: Callable[..., Any]) -> None:
        self.typing = typing


class InlineKernel:
    """A small function that kernels call: compiled into them, not alone, and as exact as they are.

    It must be written into its callers before LLVM makes machine code. Numba makes that of every
    function first and links it afterwards, and LLVM rewrites a function's addresses then: of
    ``base + offset``, either may become the pointer. A caller's constant offset is then one into
    nothing, and all code that leads there is removed.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def chosen(self, arguments: Sequence[Any]) -> Callable[..., Any]:
        """Returns the function to call for arguments of these types."""
        return self.function


class TokenMethod(InlineKernel):
    """Calls the function of this name that the token, its first argument, has.

    All tokens must have one, unless the declared function is ``optional``: what those do without.
    """

    def __init__(self, function: Callable[..., Any], *, optional: bool) -> None:
        super().__init__(function)
        self._optional = optional

    def chosen(self, arguments: Sequence[Any]) -> Callable[..., Any]:
        name, token = self.function.__name__, arguments[0].value
        default = (self.function,) if self._optional else ()
        found: Callable[..., Any] = getattr(token, name, *default)
        return found


class _Compiled(NamedTuple):
    address: int
    returns: bool
    call: Any  # the same as a function of ctypes, which leaves the GIL to others


class Kernel:
    """A module-level function of tokens, addresses and integers, compiled once per tokens.

    It returns nothing or an int64. ``exact`` keeps IEEE arithmetic operation by operation, for
    results that are a convention of a file format, or that two kernels must agree on. Nothing that
    it is given is checked: callers validate every size, offset and address first. It runs without
    the GIL.
    """

    def __init__(self, function: Callable[..., Any], *, exact: bool = False) -> None:
        self.function, self.exact = function, exact
        self._compiled: dict[tuple[str, ...], _Compiled] = {}
        self._lock = threading.Lock()
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> int | None:
        compiled = self._get([a if isinstance(a, Token) else INT for a in arguments])
        values = [None if isinstance(a, Token) else int(a) for a in arguments]
        result, exception = ctypes.c_int64(), ctypes.c_void_p()
        compiled.call(ctypes.byref(result), ctypes.byref(exception), *values)
        return result.value if compiled.returns else None

    def address(self, *signature: Token | str) -> int:
        """Compiles (or loads) the kernel for a signature of tokens and ``INT``.

        Returns the address of its machine code, which ``call_kernel`` calls: an
        ``int32 f(result*, exception**, arguments...)`` in which a token is a null pointer.
        """
        return self._get(signature).address

    def _get(self, signature: Sequence[Token | str]) -> _Compiled:
        names = tuple(s.token_name if isinstance(s, Token) else s for s in signature)
        found = self._compiled.get(names)
        if found is None:
            with self._lock:
                found = self._compiled.get(names)
                if found is None:
                    found = self._compiled[names] = self._load(names, signature)
        return found

    def _load(self, names: tuple[str, ...], signature: Sequence[Token | str]) -> _Compiled:
        file = CacheFile(self.function, names)
        code = read_kernel(file)
        if code is None:
            from edgeqwen.simd.compiler import compile_kernel

            code = compile_kernel(self.function, self.exact, signature)
            compilations.append(f"{self.function.__qualname__}({', '.join(names)})")
            write_kernel(file, code)
        address = load(code)
        parameters = [ctypes.c_void_p if n != INT else ctypes.c_int64 for n in names]
        prototype = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *parameters)
        return _Compiled(address, code.returns, prototype(address))


class ArrayKernel:
    """A module-level function that takes numpy arrays and numbers of any kind.

    Numba's own function, compiled for the types that it is called with, kept in the same cache;
    the first call imports Numba. For work that lasts long enough not to mind that.
    """

    def __init__(self, function: Callable[..., Any], *, exact: bool = False) -> None:
        self.function, self.exact = function, exact
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)

    @functools.cached_property
    def dispatcher(self) -> Any:
        """Numba's function."""
        from edgeqwen.simd.compiler import dispatcher

        return dispatcher(self.function, self.exact)


# The decorators. What they make is called by kernels, whose code no type checker can follow.


def operation(typing: Callable[..., Any]) -> Any:
    """Declares an ``Operation`` by its typing function."""
    return Operation(typing)


def token_method(function: Callable[..., Any], *, optional: bool = False) -> Any:
    """Declares a ``TokenMethod``."""
    return TokenMethod(function, optional=optional)


optional_token_method = functools.partial(token_method, optional=True)


def kernel(function: Callable[..., Any], *, exact: bool = False) -> Any:
    """Declares a ``Kernel``."""
    return Kernel(function, exact=exact)


def inline_kernel(function: Callable[..., Any]) -> Any:
    """Declares an ``InlineKernel``."""
    return InlineKernel(function)


def array_kernel(function: Callable[..., Any], *, exact: bool = False) -> Any:
    """Declares an ``ArrayKernel``."""
    return ArrayKernel(function, exact=exact)


exact_kernel = functools.partial(kernel, exact=True)
exact_array_kernel = functools.partial(array_kernel, exact=True)
"""With IEEE arithmetic operation by operation, as it is written."""
