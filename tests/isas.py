"""The instruction sets that tests generate code for: the CPU's own, and plain ones of each width.

The plain ones run anywhere, so every machine tests vectors of 4, 8 and 16 lanes, 16 and 32
registers, and float16 in hardware and in integer code.
"""

from typing import Any

import numpy as np
import pytest

from edgeqwen.simd.isa import GENERIC, Isa, available_isas, current_isa

GENERIC_8 = Isa("generic8", 8, 16, "widen", f16=False)
GENERIC_16 = Isa("generic16", 16, 32, "widen", f16=False)
NATIVE = current_isa()

TEST_ISAS = tuple(dict.fromkeys((NATIVE, GENERIC, GENERIC_8, GENERIC_16)))
"""What every operation and kernel is tested for."""

ALL_ISAS = tuple(dict.fromkeys((*TEST_ISAS, *available_isas())))
"""Also what the CPU has besides its best: for what is quickly compiled."""


def each_isa(isas: tuple[Isa, ...] = TEST_ISAS) -> pytest.MarkDecorator:
    """Marks a test that takes ``isa`` to run for each."""
    return pytest.mark.parametrize("isa", [of_isa(isa) for isa in isas])


def of_isa(isa: Isa, *values: object) -> Any:
    """Returns a parameter: what the CPU has besides its best is tested where that is the best.

    Not where CPUs are emulated: there, another run does it.
    """
    name = "-".join([isa.name, *(getattr(value, "name", str(value)) for value in values)])
    marks = () if isa in TEST_ISAS else pytest.mark.thorough
    return pytest.param(isa, *values, id=name, marks=marks)


def address(array: np.ndarray) -> int:
    """Returns the address of an array's first byte; the array must outlive its use."""
    return int(array.ctypes.data)
