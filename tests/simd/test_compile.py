"""Kernels by their address, argument records, and the GIL that they leave to others."""

import re
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.simd.atomics import atomic_load, yield_processor
from edgeqwen.simd.calls import call_kernel
from edgeqwen.simd.compile import INT, inline_kernel, kernel
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.machine_code import give_back_memory
from edgeqwen.simd.ops import lanes, poke_i64
from edgeqwen.simd.records import record, record_view
from tests.isas import TEST_ISAS, address

LAYOUT = record("target", "factor", "unused", "n")
view = record_view(LAYOUT)


@inline_kernel
def product(a, b):  # type: ignore[no-untyped-def]
    return a * b


@kernel
def written(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """A kernel as the tape calls them."""
    a = view(args)
    poke_i64(a.target, product(a.factor, chunk) + worker)
    poke_i64(a.target + 8, lanes(isa))
    poke_i64(a.target + 16, a.n)


@kernel
def called(function, args, chunk, worker):  # type: ignore[no-untyped-def]
    call_kernel(function, args, chunk, worker)


@kernel
def wait_for(cell):  # type: ignore[no-untyped-def]
    while atomic_load(cell) == 0:
        yield_processor()


def test_a_record_is_int64_fields_in_order() -> None:
    assert LAYOUT.names == ("target", "factor", "unused", "n")
    assert LAYOUT.itemsize == 32
    assert all(LAYOUT[name] == np.int64 for name in LAYOUT.names)


@pytest.mark.parametrize("isa", TEST_ISAS, ids=lambda isa: isa.name)
def test_a_kernel_is_called_by_its_address(isa: Isa) -> None:
    function = written.address(isa, INT, INT, INT)
    assert function == written.address(isa, INT, INT, INT)
    out = np.zeros(3, np.int64)
    arguments = np.zeros(1, LAYOUT)
    arguments["target"], arguments["factor"] = address(out), -(2**40)
    arguments["unused"], arguments["n"] = 7, 2**61
    called(function, address(arguments), 3, 5)
    assert out.tolist() == [-3 * 2**40 + 5, isa.lanes, 2**61]


def test_python_runs_while_a_kernel_waits() -> None:
    cell = np.ones(1, np.int64)
    wait_for(address(cell))  # compiled
    cell[0] = 0
    thread = threading.Thread(target=wait_for, args=(address(cell),), daemon=True)
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    cell[0] = 1  # would never be reached if the kernel held the GIL
    thread.join(30)
    assert not thread.is_alive()


@kernel
def printing(x):  # type: ignore[no-untyped-def]
    print(x)


def test_a_call_that_another_process_could_not_make_is_refused() -> None:
    """Linking it would end that process."""
    with pytest.raises(TypeError, match=r"printing calls .*Py.*, which not every process has"):
        printing(1)


@pytest.mark.skipif(sys.platform != "linux", reason="only there is anything given back")
def test_llvm_s_code_is_given_back_and_comes_back() -> None:
    def resident() -> int:
        """KB of LLVM's code in this process."""
        total, is_code = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                is_code = "libllvmlite" in line and " r-xp " in line
            elif is_code and line.startswith("Rss:"):
                total += int(line.split()[1])
        return total

    first, again = kernel(counted), kernel(counted)
    assert first(20) == 21
    before = resident()
    if before == 0:
        pytest.skip("an emulated system maps code in another way")
    give_back_memory()
    assert resident() < before / 2
    assert again(41) == 42
    assert first(1) == 2


def counted(x):  # type: ignore[no-untyped-def]
    return x + 1
