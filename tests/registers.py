"""A plugin for pytest: no kernel that the tests compile holds registers that a CPU lacks.

``FORBIDDEN_REGISTERS`` names them. Kernels whose signature asks for wider vectors than those of the
chosen instruction set are left alone: this machine has them, if not the CPU that it stands for.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

import pytest
from numba.core import event

from edgeqwen.simd.isa import available_isas, current_isa


def forbidden_lines(assembly: str, registers: Sequence[str]) -> list[str]:
    """Returns the lines that hold a register whose name begins with one of ``registers``."""
    names = "|".join(registers)
    return [line for line in assembly.splitlines() if re.search(rf"%({names})\d", line)]


class RegisterCheck(event.Listener):  # type: ignore[misc]
    """Looks at every function that Numba has compiled; the test that needed it fails."""

    def __init__(self, registers: Sequence[str]) -> None:
        self._registers = registers
        wider = (isa for isa in available_isas() if isa.lanes > current_isa().lanes)
        self._exempt = [f"{isa.name}/" for isa in wider]

    def on_start(self, event: Any) -> None:
        """Nothing is compiled yet."""

    def on_end(self, event: Any) -> None:
        dispatcher, arguments = event.data["dispatcher"], tuple(event.data["args"])
        if event.is_failed or any(name in str(arguments) for name in self._exempt):
            return
        assembly = dispatcher.overloads[arguments].library.get_asm_str()
        found = forbidden_lines(assembly, self._registers)
        assert not found, f"{dispatcher.py_func.__qualname__}{arguments}: {found[0].strip()}"


def pytest_configure(config: pytest.Config) -> None:
    registers = os.environ["FORBIDDEN_REGISTERS"].split()
    event.register("numba:compile", RegisterCheck(registers))
