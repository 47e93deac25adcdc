"""The machine code of products for CPUs that need not be there: which instructions, no spills.

Spilled registers halve the speed of a loop, on some process starts and not on others.
"""

import platform
import re
from typing import NamedTuple

import pytest

from edgeqwen.formats import FORMATS, Q4_0, Q8_0, Format, Tiling
from edgeqwen.formats.integer import IntegerFormat
from edgeqwen.formats.iq4 import TableFormat
from edgeqwen.formats.screened import SCREENED
from edgeqwen.kernels import gemv
from edgeqwen.kernels.attention_types import attention_shape
from edgeqwen.simd.isa import ISAS, NEON, NEON_DOTPROD, Isa
from tests.kernels.arm_loops import assembly, loop
from tests.simd.processes import answer, start

# Compiles for the CPU that NUMBA_CPU_NAME names, in a process of its own, and runs nothing.
PROGRAM = """
import json
from edgeqwen.formats import Q4_0, Q4_K, Q6_K, Q8_0
from edgeqwen.formats.screened import SCREENED
from edgeqwen.kernels.coarse import coarse
from edgeqwen.kernels.attention import attention_many
from edgeqwen.kernels.attention_types import attention_shape
from edgeqwen.kernels.gemm import gemm
from edgeqwen.kernels.gemv import gemv
from edgeqwen.simd.compile import INT
from edgeqwen.simd.compiler import assembly
from edgeqwen.simd.isa import ISAS

isa = ISAS["{isa}"]
wanted = {{}}
for f in (Q4_0, Q8_0):
    wanted[f.name + " gemv"] = gemv, f.gemv_tiling(isa)
    wanted[f.name + " gemm"] = gemm, f.gemm_tiling(isa)
screened = SCREENED[Q8_0.ggml_type].gemv_tiling(isa)
wanted["coarse"] = coarse, screened
wanted["screened gemv"] = gemv, screened
if isa.name == "avx512-vnni":
    for f in (Q4_K, Q6_K):
        wanted[f.name + " gemm"] = gemm, f.gemm_tiling(isa)
    for kv in ("f16", "q8_0"):
        wanted["attention " + kv] = attention_many, attention_shape(isa, 64, 7, False, kv)
found = {{}}
for name, (kernel, token) in wanted.items():
    found[name] = assembly(kernel, token, INT, INT, INT)
print(json.dumps(found))
"""
CPUS = {"avx512-vnni": "znver4", "avx-vnni": "alderlake", "avx2": "haswell"}
ARM_CPUS = {NEON_DOTPROD: "neoverse-n1", NEON: "cortex-a53"}


class Loop(NamedTuple):
    """The instructions of the innermost loop, and those of them that access the stack."""

    instructions: list[str]
    spills: list[str]

    def count(self, name: str) -> int:
        return sum(
            bool(re.match(rf"\t(\{{vex\}}\s+)?{name}\t", line)) for line in self.instructions
        )


def inner_loop(code: str, dot: str, stack: str) -> Loop:
    """Finds the loop with most dot products: code that jumps back to the label before it."""
    loops = [
        [line for line in match[0].splitlines() if re.match(r"\t[^.]", line)]
        for match in re.finditer(
            r"^(\.LBB\w+):.*\n(?:(?!\.LBB|\.Lfunc_end).*\n)*?\t(j|b\.?)\w+\t\1$", code, re.M
        )
    ]
    found = max(loops, key=lambda lines: sum(dot in line for line in lines))
    return Loop(found, [line for line in found if re.search(stack, line)])


@pytest.fixture(scope="module")
def codes() -> dict[str, dict[str, str]]:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("Numba compiles for other CPUs of this machine's own kind only, here not x86")
    running = {
        isa: start(
            PROGRAM.format(isa=isa),
            environment={"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""},
        )
        for isa, cpu in CPUS.items()
    }
    return {isa: answer(process) for isa, process in running.items()}


def tiling_of(isa: Isa, format_: Format, kernel: str) -> Tiling:
    found: Tiling = getattr(format_, f"{kernel}_tiling")(isa)
    return found


each_x86 = pytest.mark.parametrize("isa", [ISAS[name] for name in CPUS], ids=CPUS)
each_format = pytest.mark.parametrize("format_", [Q4_0, Q8_0], ids=lambda f: f.name)
each_kernel = pytest.mark.parametrize("kernel", ["gemv", "gemm"])


@each_x86
@each_format
@each_kernel
def test_the_inner_loop_is_made_of_dot_products(
    codes: dict[str, dict[str, str]], isa: Isa, format_: Format, kernel: str
) -> None:
    tiling = tiling_of(isa, format_, kernel)
    # Eight groups of four columns in a block, for each part and token; of int16, two columns.
    dot, groups = ("vpmaddwd", 16) if tiling.widens else (isa.dot, 8)
    found = inner_loop(codes[isa.name][f"{format_.name} {kernel}"], dot, r"\(%rsp")
    assert found.count(dot) == groups * tiling.n_parts * tiling.n_tokens
    # One takes the start of the sums away again, one multiplies by the activations' scale.
    assert found.count(r"vfmadd\w+") == 2 * tiling.n_parts * tiling.n_tokens
    assert found.count(r"vcvtdq2ps") == 0
    register = {16: "zmm", 8: "ymm"}[isa.lanes]
    dots = [line for line in found.instructions if dot in line]
    assert all(f"%{register}" in line for line in dots)
    wider = {16: "none", 8: "zmm"}[isa.lanes]
    assert wider not in codes[isa.name][f"{format_.name} {kernel}"]


@each_format
@each_kernel
def test_nothing_is_spilled_on_avx512(
    codes: dict[str, dict[str, str]], format_: Format, kernel: str
) -> None:
    code = codes["avx512-vnni"][f"{format_.name} {kernel}"]
    assert inner_loop(code, "vpdpbusd", r"zmm.*\(%rsp|\(%rsp.*zmm").spills == []
    assert "%rsp, %rbp" not in code  # rbp is a register like any other, no second way to the stack


@pytest.mark.parametrize("name", ["Q4_K", "Q6_K"])
def test_nothing_is_spilled_where_blocks_have_more_numbers(
    codes: dict[str, dict[str, str]], name: str
) -> None:
    """A minimum, or two scales and so two sums for each token."""
    code = codes["avx512-vnni"][f"{name} gemm"]
    assert inner_loop(code, "vpdpbusd", r"zmm.*\(%rsp|\(%rsp.*zmm").spills == []


@each_x86
@each_format
def test_gemv_asks_for_memory_ahead(
    codes: dict[str, dict[str, str]], isa: Isa, format_: Format
) -> None:
    """Every line of a block that comes later, into the second-level cache, then into the first."""
    found = inner_loop(codes[isa.name][f"{format_.name} gemv"], isa.dot, "none")
    lines = -(-format_.block_bytes // gemv.LINE_BYTES)
    assert [level for _, level in gemv.AHEAD] == [2, 1]
    assert (found.count("prefetcht1"), found.count("prefetcht0")) == (lines, lines)


@each_x86
def test_the_coarse_pass_takes_no_more_than_gemv_of_4_bits(
    codes: dict[str, dict[str, str]], isa: Isa
) -> None:
    """As many dot products, few instructions more, and memory is asked for as early."""
    code = codes[isa.name]
    found, plain = (inner_loop(code[name], isa.dot, "none") for name in ("coarse", "Q4_0 gemv"))
    assert found.count(isa.dot) == plain.count(isa.dot) == 8 * isa.parts
    assert len(found.instructions) <= 1.12 * len(plain.instructions)
    for level in ("prefetcht1", "prefetcht0"):
        assert found.count(level) == plain.count(level)
    if isa.name == "avx512-vnni":
        assert inner_loop(code["coarse"], isa.dot, r"zmm.*\(%rsp|\(%rsp.*zmm").spills == []


@each_x86
def test_gemv_asks_for_both_parts_of_a_screened_head(
    codes: dict[str, dict[str, str]], isa: Isa
) -> None:
    found = inner_loop(codes[isa.name]["screened gemv"], isa.dot, "none")
    format_ = SCREENED[Q8_0.ggml_type]
    lines = -(-format_.block_bytes // gemv.LINE_BYTES) + format_.lines
    assert (found.count("prefetcht1"), found.count("prefetcht0")) == (lines, lines)


@each_format
def test_gemm_spills_no_weights_on_avx2(codes: dict[str, dict[str, str]], format_: Format) -> None:
    tiling = tiling_of(ISAS["avx2"], format_, "gemm")
    found = inner_loop(codes["avx2"][f"{format_.name} gemm"], "vpmadd", r"ymm.*\(%rsp|\(%rsp.*ymm")
    # Totals may wait on the stack while a block's products are summed, each in a place of its own.
    # (Each is loaded and stored once, or in some copies of it that LLVM makes a second time.)
    places = {re.findall(r"-?\d*\(%rsp", line)[0] for line in found.spills}
    assert len(places) <= tiling.n_tokens
    assert len(found.spills) <= 3 * tiling.n_tokens


@pytest.mark.parametrize(("cache_type", "widening"), [("f16", "vcvtph2ps"), ("q8_0", "vpmovsxbd")])
def test_attention_spills_nothing_on_avx512(
    codes: dict[str, dict[str, str]], cache_type: str, widening: str
) -> None:
    shape = attention_shape(ISAS["avx512-vnni"], 64, 7, False, cache_type)
    found = inner_loop(codes["avx512-vnni"][f"attention {cache_type}"], widening, r"\(%rsp")
    assert found.count(r"vfmadd\w+") >= shape.rows * shape.vectors
    assert found.spills == []


@each_format
def test_avx512_broadcasts_in_the_dot_product(
    codes: dict[str, dict[str, str]], format_: Format
) -> None:
    """Four activations for all rows come straight from memory."""
    code = codes["avx512-vnni"][f"{format_.name} gemm"]
    found = inner_loop(code, "vpdpbusd", "none")
    embedded = [line for line in found.instructions if re.search(r"vpdpbusd\t.*\{1to16\}", line)]
    assert len(embedded) == found.count("vpdpbusd")


@pytest.mark.thorough
@pytest.mark.parametrize("isa", ARM_CPUS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("format_", FORMATS.values(), ids=lambda f: f.name)
@each_kernel
def test_arm(isa: Isa, format_: Format, kernel: str) -> None:
    tiling = tiling_of(isa, format_, kernel)
    try:
        code = assembly(loop(tiling), ARM_CPUS[isa], ",".join(f"+{f}" for f in isa.features))
    except RuntimeError as error:
        pytest.skip(f"this llvmlite can't compile for ARM: {error}")
    n = tiling.n_parts * tiling.n_tokens
    if isinstance(format_, IntegerFormat):
        found = inner_loop(code, isa.dot, r"\bq\d+.*\[sp")
        n_fma = n * format_.groups * (2 + format_.has_minima)
        # Without an instruction for it, halves of vectors are multiplied into int16.
        products, n_products = ("sdot", 8) if isa.dot == "sdot" else (r"(smull|smlal|mla)2?", 16)
        assert (found.count(products), found.count("fmla")) == (n_products * n, n_fma)
        if isinstance(format_, TableFormat) and kernel == "gemv":
            assert found.count("tbl") >= 8
        if isa.dot == "sdot":
            # Superblocks have more to keep than 32 registers hold: some scales wait on the stack.
            assert kernel == "gemm" or format_.tile_blocks > 1 or found.spills == []
        else:
            assert "sdot" not in code
    else:
        found = inner_loop(code, "fmla", r"\bq\d+.*\[sp")
        assert found.count("fmla") == 32 * n
        assert kernel == "gemv" or found.spills == []
