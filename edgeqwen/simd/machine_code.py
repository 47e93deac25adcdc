"""Machine code that was compiled before: loaded into this process, by LLVM alone if need be."""

import contextlib
import ctypes
import functools
import mmap
import os
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from edgeqwen.errors import CpuError
from edgeqwen.simd.elf import UnsupportedObjectError, link
from edgeqwen.simd.executable import is_supported

# What machine code may call, besides other functions of its own: found in the process itself.
LIBRARY_FUNCTIONS = frozenset(
    ("memcpy", "memmove", "memset", "sin", "cos", "sincos", "sqrt", "sqrtf", "fma", "fmaf")
)
# The system's own, by one name on every system.
YIELD, MADVISE = "edgeqwen_yield", "edgeqwen_madvise"


class MachineCode(NamedTuple):
    """An object file as the system's linker would take it, and the one function in it."""

    symbol: str
    returns: bool  # an int64; otherwise nothing
    object_file: bytes


_lock = threading.Lock()


def load(code: MachineCode) -> int:
    """Links an object file into the process, for good, and returns its function's address.

    Raises ValueError if there is no such function, CpuError where the system doesn't let memory be
    executed. A symbol that nobody defines would end the process: ``simd/compiler.py`` lets none
    through.
    """
    with _lock:
        if is_supported():
            # What isn't as it is expected, or not allowed, may be so for LLVM.
            with contextlib.suppress(UnsupportedObjectError, OSError):
                return link(code.object_file, code.symbol, _external)
        try:
            return _load_by_llvm(code)
        except OSError as error:
            raise CpuError(
                f"this system lets no memory be executed that a program has written ({error}), as "
                "compiled kernels must; allow it to this program (systemd: "
                "MemoryDenyWriteExecute=no; SELinux: execmem)"
            ) from error


def _load_by_llvm(code: MachineCode) -> int:
    import llvmlite.binding as llvm

    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_file))
    engine.finalize_object()
    address = int(engine.get_function_address(code.symbol))
    if address == 0:
        raise ValueError(f"the machine code has no function {code.symbol}")
    return address


def _external(name: str) -> int:
    """Returns the address of a function that machine code may call, or raises KeyError."""
    if name in (YIELD, MADVISE):
        return _system_functions()[name]
    if name not in LIBRARY_FUNCTIONS:
        raise KeyError(name)
    for library in (None, "libm.so.6"):
        with contextlib.suppress(OSError, AttributeError):
            return _address(getattr(ctypes.CDLL(library), name))
    raise KeyError(name)


@functools.cache
def _system_functions() -> dict[str, int]:
    if os.name == "nt":
        yields = releases = ctypes.WinDLL("kernel32").SwitchToThread  # type: ignore[attr-defined]
    else:
        system = ctypes.CDLL(None)
        yields, releases = system.sched_yield, system.madvise
    return {YIELD: _address(yields), MADVISE: _address(releases)}


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def give_back_memory() -> None:
    """Lets the system take back what LLVM's code takes, once kernels are loaded.

    Compiling and linking touch some 30 MB of it or more. It is read from its file again if it is
    needed again. On Linux; elsewhere nothing happens.
    """
    if "llvmlite.binding" not in sys.modules:
        return
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in lines:
        # Code is mapped executable, and never written to: nothing can be lost.
        if " r-xp " in line and "libllvmlite" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            madvise(start, end - start, mmap.MADV_DONTNEED)


@functools.cache
def prepare() -> None:
    """Gets LLVM ready for this machine, and names the system's functions that kernels call."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name, address in _system_functions().items():
        llvm.add_symbol(name, address)


@functools.cache
def _engine() -> Any:
    import llvmlite.binding as llvm

    prepare()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
