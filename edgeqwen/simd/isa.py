"""Which instruction set the kernels are generated for: read from the CPU, or from EDGEQWEN_ISA."""

import os
from dataclasses import dataclass

from edgeqwen.errors import CpuError
from edgeqwen.simd.cpu import cpu_features, cpu_name
from edgeqwen.simd.token import Token


@dataclass(frozen=True, slots=True)
class Isa(Token):
    """One way of generating code.

    ``lanes`` is the number of float32 values that a vector of the kernels holds; a tile has 16
    rows, which are ``16 // lanes`` vectors. ``registers`` bounds how many vectors a micro-kernel
    may keep alive. ``dot`` names how four products of int8 are summed into an int32:

    - ``vpdpbusd``: one instruction, unsigned times signed (AVX-512-VNNI, AVX-VNNI);
    - ``vpmaddubsw``: unsigned times signed, pairs summed with saturation to int16 (AVX2);
    - ``sdot``: one instruction, signed times signed (NEON with dotprod);
    - ``smlal``: signed times signed, summed in int16 while these have room (NEON without it);
    - ``widen``: plain vector code that runs anywhere.

    ``f16`` says that LLVM converts float16 in hardware; otherwise integer operations do.
    ``lookup`` names how bytes are looked up in a table of 16: ``pshufb`` (x86), ``tbl`` (NEON),
    ``select`` (plain vector code).
    """

    name: str
    lanes: int
    registers: int
    dot: str
    f16: bool = True
    lookup: str = "select"
    features: tuple[str, ...] = ()

    @property
    def token_name(self) -> str:
        return f"Isa({self.name}/{self.lanes})"

    @property
    def isa(self) -> "Isa":
        """Itself, as every token that has an instruction set tells it."""
        return self

    @property
    def parts(self) -> int:
        """How many vectors hold one value for each of a tile's 16 rows."""
        return 16 // self.lanes

    @property
    def fences(self) -> bool:
        """Whether ``Emitter.fence`` can hold LLVM to the order that code is written in."""
        return self.dot in ("vpdpbusd", "vpmaddubsw")

    def dot_excess(self, limit: int, signed: bool) -> int:
        """Returns e such that ``Emitter.dot`` computes with w + e in place of each weight w.

        Not every instruction set multiplies signed by signed or full-range unsigned by signed;
        whoever sums the result makes up for it with -e * (sum of the activations).
        """
        if self.dot == "vpdpbusd":
            return 128 if signed else 0
        # What an int8 holds; what two products with 127 may sum to in an int16.
        most = {"sdot": 127, "smlal": 127, "vpmaddubsw": 129}.get(self.dot, 255)
        return -128 if not signed and limit > most else 0

    def dot_range(self, limit: int, signed: bool) -> tuple[int, bool]:
        """Returns the limit and sign of weights that have had their excess added."""
        if not self.dot_excess(limit, signed):
            return limit, signed
        return (255, False) if signed else (128, True)


_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")
_AVX2 = ("avx2", "fma", "f16c")
AVX512_VNNI = Isa("avx512-vnni", 16, 32, "vpdpbusd", lookup="pshufb", features=_AVX512)
AVX_VNNI = Isa("avx-vnni", 8, 16, "vpdpbusd", lookup="pshufb", features=(*_AVX2, "avxvnni"))
AVX2 = Isa("avx2", 8, 16, "vpmaddubsw", lookup="pshufb", features=_AVX2)
_NEON = ("neon",)
NEON_DOTPROD = Isa("neon-dotprod", 4, 32, "sdot", lookup="tbl", features=(*_NEON, "dotprod"))
NEON = Isa("neon", 4, 32, "smlal", lookup="tbl", features=_NEON)
GENERIC = Isa("generic", 4, 16, "widen", f16=False)

# Best first; the first that the CPU has is taken.
ISAS = {isa.name: isa for isa in (AVX512_VNNI, AVX_VNNI, AVX2, NEON_DOTPROD, NEON, GENERIC)}


def available_isas() -> list[Isa]:
    """Returns the instruction sets that this CPU can run, best first."""
    return [isa for isa in ISAS.values() if cpu_features().issuperset(isa.features)]


def current_isa() -> Isa:
    """Returns the instruction set to generate code for.

    Raises CpuError when EDGEQWEN_ISA names an unknown one, or one that this CPU lacks.
    """
    wanted = os.environ.get("EDGEQWEN_ISA", "").strip().lower()
    if not wanted:
        return available_isas()[0]
    if wanted not in ISAS:
        raise CpuError(
            f"EDGEQWEN_ISA={wanted}: no such instruction set; choose one of {', '.join(ISAS)}, "
            "or unset it to use the best that this CPU has"
        )
    missing = [f for f in ISAS[wanted].features if f not in cpu_features()]
    if missing:
        names = ", ".join(isa.name for isa in available_isas())
        raise CpuError(
            f"EDGEQWEN_ISA={wanted}: this CPU ({cpu_name()}) lacks "
            f"{', '.join(missing)}; it can run {names}"
        )
    return ISAS[wanted]
