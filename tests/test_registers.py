"""The plugin that looks at registers: which code it refuses, and whose it leaves alone."""

from pathlib import Path

import pytest

from edgeqwen.simd import compiler
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.isa import AVX2, AVX512_VNNI, GENERIC
from tests import registers
from tests.registers import RegisterCheck, forbidden_lines

CODE = """
\tvmovups\t(%rdi), %ymm3
\tvpaddd\t%zmm1, %zmm17, %zmm0
\tretq
"""


@kernel
def doubled(x):  # type: ignore[no-untyped-def]
    return x + x


def test_forbidden_lines() -> None:
    assert forbidden_lines(CODE, ["zmm"]) == ["\tvpaddd\t%zmm1, %zmm17, %zmm0"]
    assert len(forbidden_lines(CODE, ["ymm", "zmm"])) == 2
    assert forbidden_lines(CODE, ["xmm"]) == []


def test_whose_code_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "available_isas", lambda: [AVX512_VNNI, AVX2, GENERIC])
    monkeypatch.setattr(registers, "current_isa", lambda: AVX2)
    check = RegisterCheck(["zmm"])
    for signature in ("Tiling(Q4_0, avx2/8)", "Tiling(Q4_0, generic/4)", "Format(Q4_0)"):
        with pytest.raises(AssertionError, match=r"doubled.*vpaddd"):
            check.check("doubled", [signature, "int64"], CODE)
    check.check("doubled", ["Tiling(Q4_0, avx512-vnni/16)"], CODE)
    RegisterCheck(["kmm"]).check("doubled", ["Tiling(Q4_0, avx2/8)"], CODE)


def test_what_is_compiled_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEQWEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "_compiled", RegisterCheck(["zmm"]).around(compiler._compiled))
    monkeypatch.setattr(registers, "forbidden_lines", lambda code, names: code.splitlines()[:1])
    with pytest.raises(AssertionError, match=r"doubled\(int64\): "):
        doubled(21)
    monkeypatch.undo()
    assert doubled(21) == 42
