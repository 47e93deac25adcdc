"""The plugin that looks at registers: which code it refuses, and whose it leaves alone."""

from types import SimpleNamespace

import pytest
from numba.core import event

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


def compiled(check: RegisterCheck, signature: str, *, failed: bool = False) -> None:
    """Tells the check that a function was compiled to ``CODE``."""
    library = SimpleNamespace(get_asm_str=lambda: CODE)
    dispatcher = SimpleNamespace(
        overloads={(signature,): SimpleNamespace(library=library)}, py_func=doubled.py_func
    )
    data = {"dispatcher": dispatcher, "args": [signature]}
    check.on_end(SimpleNamespace(data=data, is_failed=failed))


def test_whose_code_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "available_isas", lambda: [AVX512_VNNI, AVX2, GENERIC])
    monkeypatch.setattr(registers, "current_isa", lambda: AVX2)
    check = RegisterCheck(["zmm"])
    for signature in ("Tiling(Q4_0, avx2/8)", "Tiling(Q4_0, generic/4)", "Format(Q4_0)"):
        with pytest.raises(AssertionError, match=r"doubled.*vpaddd"):
            compiled(check, signature)
    compiled(check, "Tiling(Q4_0, avx512-vnni/16)")
    compiled(check, "Tiling(Q4_0, avx2/8)", failed=True)
    compiled(RegisterCheck(["kmm"]), "Tiling(Q4_0, avx2/8)")


def test_numba_tells_of_what_it_compiles() -> None:
    found: list[str] = []

    class Check(RegisterCheck):
        def on_end(self, event: object) -> None:
            super().on_end(event)
            found.append("checked")

    doubled._cache.disable()
    with event.install_listener("numba:compile", Check(["nothing"])):
        assert doubled(21) == 42
    assert found == ["checked"]
