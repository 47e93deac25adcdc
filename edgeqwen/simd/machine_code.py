"""Machine code that was compiled before: loaded into this process by LLVM alone."""

import ctypes
import functools
import mmap
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm

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

    Raises ValueError if there is no such function. A symbol that nobody defines would end the
    process: ``simd/compiler.py`` lets none through.
    """
    with _lock:
        engine = _engine()
        engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_file))
        engine.finalize_object()
        address = int(engine.get_function_address(code.symbol))
    if address == 0:
        raise ValueError(f"the machine code has no function {code.symbol}")
    return address


def give_back_memory() -> None:
    """Lets the system take back what LLVM's code takes, once kernels are loaded.

    Linking touches some 30 MB of it. It is read from its file again if it is needed again. On
    Linux; elsewhere nothing happens.
    """
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
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if os.name == "nt":
        yields = releases = ctypes.WinDLL("kernel32").SwitchToThread  # type: ignore[attr-defined]
    else:
        system = ctypes.CDLL(None)
        yields, releases = system.sched_yield, system.madvise
    for name, function in ((YIELD, yields), (MADVISE, releases)):
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value or 0)


@functools.cache
def _engine() -> Any:
    prepare()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
