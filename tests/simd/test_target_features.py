"""Functions say which of the CPU's features they use, where LLVM doesn't know of them."""

import re

import pytest
from llvmlite import ir
from numba.core.registry import cpu_target

from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.isa import GENERIC, Isa
from tests.isas import NATIVE
from tests.simd.processes import answer, start

TRIPLE, _, FOUND = cpu_target.target_context.codegen().magic_tuple()
# What no target has, so that LLVM can't have found it here.
UNKNOWN = Isa("unknown", 4, 16, "widen", features=("first", "second"))

# LLVM is told to know nothing of this CPU: without a word from the function, it would end the
# process over the dot product.
PROGRAM = """
import json
import numpy as np
from tests.isas import NATIVE, address
from tests.simd.dot_kernels import Dot, dots

n = NATIVE.lanes
dot = Dot(NATIVE, 63, False)
start, out = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
weights, activations = np.full(32 * n, 3, np.uint8), np.full(32, -5, np.int8)
dots(dot, address(start), address(weights), address(activations), address(out), 1, n)
print(json.dumps((out - start).tolist()))
"""
# The same of functions that are written into others, which must say it for them.
INLINING = """
import json
from edgeqwen.formats import Q4_0
from edgeqwen.kernels.gated import Gated, gated_gemm
from edgeqwen.simd.compile import INT
from tests.isas import NATIVE

tiling = Q4_0.gemm_tiling(NATIVE)
print(json.dumps(gated_gemm.address(Gated(tiling, tiling.panel), INT, INT, INT) != 0))
"""


def declared(isa: Isa, triple: str = TRIPLE) -> str | None:
    """Returns the features that a function declares after operations of an ISA were emitted."""
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    Emitter(builder, GENERIC)
    Emitter(builder, isa)
    Emitter(builder, isa)
    found = re.findall(r'"target-features"="(.*?)"', str(function))
    assert len(found) <= 1
    return found[0] if found else None


def test_what_llvm_found_is_repeated_and_the_rest_added() -> None:
    assert declared(UNKNOWN) == ",".join([*filter(None, [FOUND]), "+first,+second"])


@pytest.mark.skipif("+" not in FOUND, reason="LLVM finds no features of this CPU")
def test_only_what_llvm_did_not_find_is_added() -> None:
    known = next(name for name in FOUND.split(",") if name.startswith("+"))
    features = (known[1:], "first")
    assert declared(Isa("mixed", 4, 16, "widen", features=features)) == f"{FOUND},+first"
    assert declared(Isa("known", 4, 16, "widen", features=features[:1])) is None


def test_plain_code_says_nothing() -> None:
    assert declared(GENERIC) is None


def test_code_for_another_machine_is_left_alone() -> None:
    assert declared(UNKNOWN, "riscv64-unknown-linux-gnu") is None


@pytest.mark.processes
def test_kernels_run_where_llvm_does_not_know_the_cpu() -> None:
    process = start(PROGRAM, environment={"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""})
    assert answer(process) == [32 * 3 * -5] * NATIVE.lanes


@pytest.mark.processes
def test_what_is_written_into_kernels_may_use_as_much() -> None:
    process = start(INLINING, environment={"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""})
    assert answer(process) is True
