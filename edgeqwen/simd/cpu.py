"""Which CPU this is, and what it can do."""

import ctypes
import functools
import os
import sys

from edgeqwen.simd.cpuid import x86


@functools.cache
def cpu_features() -> frozenset[str]:
    """Returns the CPU's features by LLVM's names, corrected where LLVM doesn't look.

    On x86, CPUID tells of those that kernels use. On 64-bit ARM, LLVM lists ``dotprod`` only for
    CPUs that it knows by name, so the system is asked: getauxval(AT_HWCAP) on Linux, sysctl on
    macOS.
    """
    if (known := x86()) is not None:
        return known.features
    import llvmlite.binding as llvm

    features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    if machine() in ("aarch64", "arm64"):
        features.add("neon")
        if _arm_has_dotprod():
            features.add("dotprod")
        else:
            features.discard("dotprod")
    return frozenset(features)


def cpu_name() -> str:
    """Returns what the CPU calls itself, or LLVM calls it."""
    if (known := x86()) is not None:
        return known.name
    import llvmlite.binding as llvm

    name: str = llvm.get_host_cpu_name()
    return name


def cpu_identity() -> bytes:
    """Returns what machine code depends on: alike for CPUs that LLVM makes the same code for."""
    if (known := x86()) is not None:
        return known.identity
    import llvmlite.binding as llvm

    found = (llvm.get_host_cpu_name(), sorted(llvm.get_host_cpu_features().items()))
    return repr(found).encode()


def machine() -> str:
    """Returns the kind of machine: x86_64, amd64, aarch64, arm64 or another."""
    if hasattr(os, "uname"):
        return os.uname().machine.lower()
    import platform  # takes longer

    return platform.machine().lower()


def _arm_has_dotprod() -> bool:
    if sys.platform == "linux":
        at_hwcap, hwcap_asimddp = 16, 20
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.restype = ctypes.c_ulong
        return bool(getauxval(ctypes.c_ulong(at_hwcap)) >> hwcap_asimddp & 1)
    if sys.platform == "darwin":
        value, size = ctypes.c_int(0), ctypes.c_size_t(4)
        name = b"hw.optional.arm.FEAT_DotProd"
        found = ctypes.CDLL(None).sysctlbyname(
            name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
        return found == 0 and value.value == 1
    return False
