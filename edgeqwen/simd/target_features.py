"""What a function's machine code may use of the CPU, beyond what LLVM found out by itself.

LLVM ends the process over an instruction that it doesn't believe the CPU to have. On 64-bit ARM it
finds the dot product only for CPUs that it knows by name; on x86, Numba takes AVX away from those
that LLVM knows no name for. ``simd/isa.py`` asks better, so functions say themselves what they use.
"""

from typing import TYPE_CHECKING, Any

from edgeqwen.simd.isa import Isa

if TYPE_CHECKING:
    from llvmlite import ir


def declare_features(function: "ir.Function", isa: Isa) -> None:
    """Lets a function that Numba compiles use an instruction set.

    Code for another machine than this one is left alone: who compiles it says what it may use.
    """
    from numba.core.registry import cpu_target  # only where code is generated

    codegen: Any = cpu_target.target_context.codegen()
    triple, _, found = codegen.magic_tuple()
    missing = [f"+{name}" for name in isa.features if f"+{name}" not in found.split(",")]
    if not missing or function.module.triple != triple:
        return
    # The attribute takes the place of what was found, so it repeats that; the last word counts.
    features = ",".join([found, *missing]) if found else ",".join(missing)
    # llvmlite writes attributes as they are, but its own list of them has none with a value.
    set.add(function.attributes, f'"target-features"="{features}"')
