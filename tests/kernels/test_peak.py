"""Products in registers: what they compute, and that their loops are made of nothing else."""

import platform

import numpy as np
import pytest

from edgeqwen.kernels.peak import GROUPS, LARGEST_WEIGHT, MULTIPLY, Peak, multiply
from edgeqwen.simd.isa import ISAS, Isa
from tests.isas import ALL_ISAS, each_isa
from tests.kernels.running import run
from tests.kernels.test_assembly import CPUS, Loop, inner_loop
from tests.oracles import kernels as oracle
from tests.simd.processes import answer, start

# Compiles for the CPU that NUMBA_CPU_NAME names, in a process of its own, and runs nothing.
PROGRAM = """
import json
from edgeqwen.kernels.peak import Peak, multiply
from edgeqwen.simd.compile import INT
from edgeqwen.simd.compiler import assembly
from edgeqwen.simd.isa import ISAS

found = {{}}
for kind in ("integers", "floats"):
    peak = Peak(ISAS["{isa}"], kind == "integers")
    found[kind] = assembly(multiply, peak, INT, INT, INT)
print(json.dumps(found))
"""


@each_isa(ALL_ISAS)
@pytest.mark.parametrize("n_steps", [0, 1, 3, 50])
def test_integers_are_the_twins(isa: Isa, n_steps: int) -> None:
    peak, rng = Peak(isa, integers=True), np.random.default_rng(n_steps)
    weight = rng.integers(0, LARGEST_WEIGHT + 1, (isa.lanes, 4), np.uint8)
    left = np.tile(weight, (2, GROUPS, 1, 1))
    right = rng.integers(-127, 128, (peak.n_right, isa.lanes, 4), np.int8)
    before = rng.integers(-(2**31), 2**31, (3, peak.n_sums, isa.lanes), np.int32)
    sums = before.copy()
    run(
        multiply,
        peak,
        MULTIPLY,
        3,
        {"n_steps": n_steps, "left": left, "right": right, "sums": sums},
    )
    assert (sums == before + oracle.repeated_products(weight, right, GROUPS * n_steps)).all()
    assert peak.macs == GROUPS * peak.n_sums * weight.size


@each_isa(ALL_ISAS)
def test_floats_are_the_twins(isa: Isa) -> None:
    peak, rng = Peak(isa, integers=False), np.random.default_rng(0)
    factor = rng.standard_normal(isa.lanes, np.float32)
    left = np.tile(factor, (2, GROUPS, 1))
    right = rng.standard_normal((peak.n_right, isa.lanes), np.float32)
    before = rng.standard_normal((2, peak.n_sums, isa.lanes), np.float32)
    sums = before.copy()
    run(multiply, peak, MULTIPLY, 2, {"n_steps": 20, "left": left, "right": right, "sums": sums})
    expected = before + oracle.repeated_products(factor, right, 20)
    np.testing.assert_allclose(sums, expected, atol=1e-4)
    assert peak.macs == peak.n_sums * isa.lanes


@pytest.fixture(scope="module")
def loops() -> dict[tuple[str, str], Loop]:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("Numba compiles for other CPUs of this machine's own kind only, here not x86")
    running = {
        isa: start(
            PROGRAM.format(isa=isa),
            environment={"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""},
        )
        for isa, cpu in CPUS.items()
    }
    return {
        (isa, kind): inner_loop(code, ISAS[isa].dot if kind == "integers" else "vfmadd", r"\(%r")
        for isa, process in running.items()
        for kind, code in answer(process).items()
    }


@pytest.mark.parametrize("isa", [ISAS[name] for name in CPUS], ids=CPUS)
@pytest.mark.parametrize("kind", ["integers", "floats"])
def test_the_loop_is_made_of_products(
    loops: dict[tuple[str, str], Loop], isa: Isa, kind: str
) -> None:
    loop, peak = loops[isa.name, kind], Peak(isa, integers=kind == "integers")
    n_products = peak.n_sums * (GROUPS if peak.integers else 1)
    name = isa.dot if peak.integers else r"vfmadd\w+"
    assert loop.count(name) % n_products == 0  # LLVM may do some steps at once
    n_steps = loop.count(name) // n_products
    assert n_steps >= 1
    # What sums in two or three instructions needs these; counting and jumping are left.
    additions = 0 if peak.accumulates else n_products + peak.n_sums
    instructions = [line for line in loop.instructions if not line.startswith("\t#")]
    assert 0 < len(instructions) - n_steps * (n_products + additions) <= 8
    assert loop.spills == []
