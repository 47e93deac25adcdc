"""A plugin for pytest: no kernel that the tests compile holds registers that a CPU lacks.

``FORBIDDEN_REGISTERS`` names them. Kernels whose signature asks for wider vectors than those of the
chosen instruction set are left alone: this machine has them, if not the CPU that it stands for.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from edgeqwen.simd import compiler
from edgeqwen.simd.isa import available_isas, current_isa


def forbidden_lines(assembly: str, registers: Sequence[str]) -> list[str]:
    """Returns the lines that hold a register whose name begins with one of ``registers``."""
    names = "|".join(registers)
    return [line for line in assembly.splitlines() if re.search(rf"%({names})\d", line)]


class RegisterCheck:
    """Looks at every kernel that is compiled; the test that needed it fails."""

    def __init__(self, registers: Sequence[str]) -> None:
        self._registers = registers
        wider = (isa for isa in available_isas() if isa.lanes > current_isa().lanes)
        self._exempt = [f"{isa.name}/" for isa in wider]

    def check(self, name: str, signature: Sequence[str], assembly: str) -> None:
        """Raises AssertionError if there is something in a kernel's machine code."""
        if any(exempt in part for exempt in self._exempt for part in signature):
            return
        found = forbidden_lines(assembly, self._registers)
        assert not found, f"{name}({', '.join(signature)}): {found[0].strip()}"

    def around(self, compile_: Callable[..., Any]) -> Callable[..., Any]:
        """Returns what compiles kernels, followed by the check."""

        def checked(function: Callable[..., Any], exact: bool, signature: Sequence[Any]) -> Any:
            result = compile_(function, exact, signature)
            names = [getattr(part, "token_name", part) for part in signature]
            self.check(function.__qualname__, names, result.library.get_asm_str())
            return result

        return checked


def pytest_configure(config: pytest.Config) -> None:
    check = RegisterCheck(os.environ["FORBIDDEN_REGISTERS"].split())
    compiler._compiled = check.around(compiler._compiled)
