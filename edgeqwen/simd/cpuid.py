"""The CPUID instruction of x86, by a few bytes of machine code.

Its answers tell what LLVM would find out, without the 40 ms that loading LLVM takes.
"""

import ctypes
import functools
import struct
from collections.abc import Callable
from typing import NamedTuple

from edgeqwen.simd.executable import CodeMemory, is_supported

# void f(uint32 leaf, uint32 subleaf, uint32 answer[4]), by the System V calling convention:
#   push rbx;  mov r8, rdx;  mov eax, edi;  mov ecx, esi;  cpuid
#   mov [r8], eax;  mov [r8+4], ebx;  mov [r8+8], ecx;  mov [r8+12], edx;  pop rbx;  ret
_CPUID = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")
# uint32 f(): which registers the system saves: xor ecx, ecx;  xgetbv;  ret
_XGETBV = bytes.fromhex("31c9 0f01d0 c3")

_OSXSAVE = 1 << 27
# In the answer of XGETBV: the registers xmm and ymm; those, mask registers and zmm.
_SAVES_YMM, _SAVES_ZMM = 0x06, 0xE6


class _Bit(NamedTuple):
    """Where CPUID tells of a feature: register 0 to 3 is eax, ebx, ecx, edx."""

    leaf: int
    subleaf: int
    register: int
    bit: int
    saved: int


FEATURES = {
    "fma": _Bit(1, 0, 2, 12, _SAVES_YMM),
    "f16c": _Bit(1, 0, 2, 29, _SAVES_YMM),
    "avx2": _Bit(7, 0, 1, 5, _SAVES_YMM),
    "avxvnni": _Bit(7, 1, 0, 4, _SAVES_YMM),
    "avx512f": _Bit(7, 0, 1, 16, _SAVES_ZMM),
    "avx512bw": _Bit(7, 0, 1, 30, _SAVES_ZMM),
    "avx512vl": _Bit(7, 0, 1, 31, _SAVES_ZMM),
    "avx512vnni": _Bit(7, 0, 2, 11, _SAVES_ZMM),
}
"""The features that kernels make use of, by LLVM's names."""
# Maker, model and all features.
_IDENTIFYING = ((0, 0), (1, 0), (7, 0), (7, 1), (0x80000001, 0))
# What no code depends on, by leaf, subleaf and register: it differs from core to core (leaf 1's
# ebx), or another kernel or microcode may change it (hypervisor, protection keys, cures of faults).
_PASSING = {
    (1, 0, 1): 0xFFFFFFFF,
    (1, 0, 2): 1 << 31,
    (7, 0, 2): 1 << 4,
    (7, 0, 3): 0xFC000000 | 1 << 13 | 1 << 10 | 1 << 9,
}
_BRAND = (0x80000002, 0x80000003, 0x80000004)


class X86(NamedTuple):
    """``identity`` is alike for CPUs that can run the same machine code, and run it alike."""

    name: str
    features: frozenset[str]
    identity: bytes


@functools.cache
def x86() -> X86 | None:
    """Returns what this CPU is, or None where it can't be asked."""
    if not is_supported():
        return None
    try:
        cpuid, xgetbv = _functions()
    except OSError:
        return None
    highest, highest_extended = cpuid(0, 0)[0], cpuid(0x80000000, 0)[0]

    def answer(leaf: int, subleaf: int) -> tuple[int, ...]:
        last = highest_extended if leaf >= 0x80000000 else highest
        beyond = leaf > last or (leaf == 7 and subleaf > cpuid(7, 0)[0])
        return (0, 0, 0, 0) if beyond else cpuid(leaf, subleaf)

    saved = xgetbv() if answer(1, 0)[2] & _OSXSAVE else 0
    features = frozenset(
        name
        for name, b in FEATURES.items()
        if answer(b.leaf, b.subleaf)[b.register] >> b.bit & 1 and saved & b.saved == b.saved
    )
    brand = b"".join(struct.pack("<4I", *answer(leaf, 0)) for leaf in _BRAND)
    asked = [
        tuple(n & ~_PASSING.get((*leaf, i), 0) for i, n in enumerate(answer(*leaf)))
        for leaf in _IDENTIFYING
    ]
    identity = repr((saved, asked, brand)).encode()
    return X86(brand.split(b"\0")[0].decode("ascii", "replace").strip(), features, identity)


def _functions() -> tuple[Callable[[int, int], tuple[int, ...]], Callable[[], int]]:
    memory = CodeMemory(len(_CPUID) + len(_XGETBV))
    memory.bytes[: len(_CPUID)] = _CPUID
    memory.bytes[len(_CPUID) : len(_CPUID) + len(_XGETBV)] = _XGETBV
    memory.seal()
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(
        memory.address
    )

    def cpuid(leaf: int, subleaf: int) -> tuple[int, ...]:
        found = (ctypes.c_uint32 * 4)()
        function(leaf, subleaf, ctypes.addressof(found))
        return tuple(found)

    return cpuid, ctypes.CFUNCTYPE(ctypes.c_uint32)(memory.address + len(_CPUID))
