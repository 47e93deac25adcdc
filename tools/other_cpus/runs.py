"""On which CPUs the tests of the kernels are run, and how."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tools.other_cpus.emulators import BUILD, Arm64Python, qemu

# Everything that is compiled, or runs what was compiled.
PRODUCT_TESTS = (
    *(
        f"tests/kernels/test_{kernel}.py"
        for kernel in ("products", "gated", "screened_products", "coarse", "screen", "peak")
    ),
    "tests/simd/test_dot.py",
)
"""What multiplies int8, in which instruction sets of one machine differ."""
INTEGER_MODELS = tuple(
    f"tests/test_engine.py::test_against_the_twin[{name}]" for name in ("Q8_0", "Q4_0", "mixed")
)
"""Whole models that do."""
STEP_TESTS = (
    "tests/kernels",
    "tests/executor",
    "tests/test_engine.py",
    "tests/test_engine_use.py",
)
FORMAT_TESTS = ("tests/formats", "tests/simd")
MODEL_TESTS = ("tests/model", "tests/sampling")
KERNEL_TESTS = STEP_TESTS + FORMAT_TESTS + MODEL_TESTS


@dataclass(frozen=True, slots=True)
class Run:
    """The tests on one CPU.

    ``isa`` is the instruction set that must be chosen there. Where ``emulated`` names a machine,
    QEMU pretends that it has a CPU, by QEMU's name for it. Elsewhere LLVM is told to compile for a
    CPU, by its name, and EDGEQWEN_ISA asks for the instruction set; no machine code may then hold
    ``forbidden`` registers, which the CPU lacks. ``tested`` and ``left_out`` are paths of tests.
    """

    name: str
    isa: str
    cpu: str
    emulated: str = ""
    forbidden: str = ""
    tested: tuple[str, ...] = KERNEL_TESTS
    left_out: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it keeps what it printed."""
        return BUILD / self.name

    @property
    def title(self) -> str:
        how = f"{self.emulated} emulated" if self.emulated else "compiled"
        return f"{self.isa}, {how} for {self.cpu}"

    def launcher(self) -> list[str]:
        """Returns the command that starts Python. Raises UnavailableError."""
        if not self.emulated:
            return [sys.executable]
        emulator = [str(qemu(self.emulated)), "-cpu", self.cpu]
        if self.emulated == "x86_64":
            return [*emulator, sys.executable]
        python = Arm64Python()
        path = ":".join(map(str, python.path))
        emulator += ["-L", str(python.root), "-E", f"PYTHONPATH={path}"]
        # -P: edgeqwen comes from there, not from this folder, where two of its packages lack.
        return [*emulator, str(python.program), "-P"]

    def environment(self) -> dict[str, str]:
        """Returns the variables of its processes."""
        found = {k: v for k, v in os.environ.items() if not k.startswith(("EDGEQWEN_", "NUMBA_"))}
        if self.emulated:
            # One for all: what a CPU's run has compiled, its next one needn't.
            found["EDGEQWEN_CACHE_DIR"] = str(BUILD / "kernels")
            if self.isa == "avx2":
                # numpy's own sort by AVX2 ends in a segmentation fault under QEMU (seen in 2.4.6).
                found["NPY_DISABLE_CPU_FEATURES"] = "X86_V3"
        else:
            found["EDGEQWEN_CACHE_DIR"] = str(self.folder / "cache")
            # Without the second, LLVM would add the features of this machine's CPU.
            found |= {"NUMBA_CPU_NAME": self.cpu, "NUMBA_CPU_FEATURES": ""}
            found |= {"EDGEQWEN_ISA": self.isa, "FORBIDDEN_REGISTERS": self.forbidden}
        return found

    def tests(self) -> list[str]:
        """Returns pytest's arguments."""
        chosen = ["-m", "pytest", "--import-mode=append", "-p", "no:cacheprovider", *self.tested]
        chosen.append("--durations=20")
        chosen += [f"--ignore={path}" for path in self.left_out]
        if not self.emulated:
            return [*chosen, "-p", "tests.registers"]
        # Emulated code is ten times slower, or more. Left out are tests of very many values, those
        # that start Python, which the system would have to know how to emulate, and plain vector
        # code, which is the same on every CPU, but for the one CPU that has nothing better.
        plain = "generic" if self.isa != "generic" else "generic8 and not generic16"
        return [*chosen, "-m", "not slow and not processes and not thorough", "-k", f"not {plain}"]


# The longest first, so that two processors end at about the same time. What both CPUs compute in
# the same way is tested on one of them. (CPUs that sign pointers take a third longer.)
DOTPROD = Run("neon-dotprod", "neon-dotprod", "neoverse-n1", emulated="aarch64")
ARM64 = (
    Run("neon", "neon", "cortex-a72", emulated="aarch64", tested=(*PRODUCT_TESTS, *INTEGER_MODELS)),
    replace(DOTPROD, tested=PRODUCT_TESTS),
    replace(DOTPROD, name="neon-dotprod-steps", tested=STEP_TESTS, left_out=PRODUCT_TESTS),
    replace(DOTPROD, name="neon-dotprod-formats", tested=FORMAT_TESTS, left_out=PRODUCT_TESTS),
    replace(DOTPROD, name="neon-dotprod-models", tested=MODEL_TESTS),
)
X86 = (
    Run("avx-vnni", "avx-vnni", "alderlake", forbidden="zmm"),
    Run("avx2", "avx2", "haswell", forbidden="zmm"),
    Run("generic", "generic", "nehalem", forbidden="ymm zmm"),
)
# X86 runs all tests and looks at every register; these prove, by what has the most instructions,
# that such a CPU has them all.
EMULATED_TESTS = (*PRODUCT_TESTS, "tests/kernels/test_attention.py", *INTEGER_MODELS)
X86_EMULATED = (
    Run("haswell", "avx2", "Haswell", emulated="x86_64", tested=EMULATED_TESTS),
    Run("nehalem", "generic", "Nehalem", emulated="x86_64", tested=EMULATED_TESTS),
)
GROUPS = {"arm64": ARM64, "x86": X86, "x86-emulated": X86_EMULATED}
