"""Which instruction set is chosen: from the CPU's features, and from EDGEQWEN_ISA."""

import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
import pytest

from edgeqwen.errors import CpuError
from edgeqwen.simd import cpu
from edgeqwen.simd import isa as isa_module
from edgeqwen.simd.cpu import cpu_features, cpu_name
from edgeqwen.simd.dot import DOTS
from edgeqwen.simd.isa import (
    AVX2,
    AVX512_VNNI,
    AVX_VNNI,
    GENERIC,
    ISAS,
    NEON,
    NEON_DOTPROD,
    Isa,
    available_isas,
    current_isa,
)

HASWELL = {"avx2", "fma", "f16c"}
ZEN_4 = HASWELL | {"avx512f", "avx512bw", "avx512vl", "avx512vnni"}


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEQWEN_ISA", raising=False)


def pretend(monkeypatch: pytest.MonkeyPatch, features: set[str]) -> None:
    monkeypatch.setattr(isa_module, "cpu_features", lambda: frozenset(features))
    monkeypatch.setattr(isa_module, "cpu_name", lambda: "thiscpu")


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (ZEN_4 | {"avxvnni"}, AVX512_VNNI),
        (ZEN_4, AVX512_VNNI),
        (ZEN_4 - {"avx512vl"} | {"avxvnni"}, AVX_VNNI),
        (HASWELL | {"avx512f", "avx512vnni"}, AVX2),
        (HASWELL, AVX2),
        (HASWELL - {"f16c"}, GENERIC),
        (HASWELL - {"fma"}, GENERIC),
        ({"neon", "dotprod"}, NEON_DOTPROD),
        ({"neon"}, NEON),
        (set(), GENERIC),
    ],
    ids=lambda value: value.name if isinstance(value, Isa) else "",
)
def test_the_best_that_the_cpu_has(
    monkeypatch: pytest.MonkeyPatch, features: set[str], expected: Isa
) -> None:
    pretend(monkeypatch, features)
    assert current_isa() is expected
    assert available_isas()[0] is expected
    assert available_isas()[-1] is GENERIC


def test_this_cpu_runs_what_is_chosen() -> None:
    assert current_isa() is available_isas()[0]
    assert cpu_features().issuperset(current_isa().features)


@pytest.mark.parametrize("wanted", ["generic", " Generic\t", "GENERIC"])
def test_another_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("EDGEQWEN_ISA", wanted)
    assert current_isa() is GENERIC


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_choice_is_none(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    monkeypatch.setenv("EDGEQWEN_ISA", empty)
    assert current_isa() is available_isas()[0]


def test_an_unknown_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQWEN_ISA", "sse4")
    with pytest.raises(CpuError) as caught:
        current_isa()
    assert str(caught.value) == (
        "EDGEQWEN_ISA=sse4: no such instruction set; choose one of avx512-vnni, avx-vnni, avx2, "
        "neon-dotprod, neon, generic, or unset it to use the best that this CPU has"
    )


def test_one_that_the_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, HASWELL | {"avx512f", "avx512vl"})
    monkeypatch.setenv("EDGEQWEN_ISA", "avx512-vnni")
    with pytest.raises(CpuError) as caught:
        current_isa()
    assert str(caught.value) == (
        "EDGEQWEN_ISA=avx512-vnni: this CPU (thiscpu) lacks avx512bw, avx512vnni; "
        "it can run avx2, generic"
    )


ABSENT = [isa for isa in ISAS.values() if isa not in available_isas()]


@pytest.mark.parametrize("isa", ABSENT, ids=lambda isa: isa.name)
def test_what_this_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, isa: Isa) -> None:
    """Without pretending: what other kinds of CPUs have, and newer ones of this kind."""
    monkeypatch.setenv("EDGEQWEN_ISA", isa.name)
    missing = [name for name in isa.features if name not in cpu_features()]
    with pytest.raises(CpuError) as caught:
        current_isa()
    assert str(caught.value) == (
        f"EDGEQWEN_ISA={isa.name}: this CPU ({cpu_name()}) lacks "
        f"{', '.join(missing)}; it can run {', '.join(found.name for found in available_isas())}"
    )


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
def test_every_isa_fits_the_tiles(isa: Isa) -> None:
    assert ISAS[isa.name] is isa
    assert isa.lanes * isa.parts == 16
    assert isa.registers in (16, 32)
    assert isa.dot in DOTS


class FakeLibrary:
    """What ctypes loads on a system of 64-bit ARM."""

    def __init__(self, *, hwcap: int = 0, sysctl: dict[bytes, int] | None = None) -> None:
        self.getauxval = FakeGetauxval(hwcap)
        self._sysctl = sysctl or {}

    def sysctlbyname(self, name: bytes, value: Any, size: Any, new: Any, new_size: Any) -> int:
        if name not in self._sysctl:
            return -1
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = self._sysctl[name]
        return 0


class FakeGetauxval:
    restype: Any = None

    def __init__(self, hwcap: int) -> None:
        self._hwcap = hwcap

    def __call__(self, kind: ctypes.c_ulong) -> int:
        assert kind.value == 16  # AT_HWCAP
        return self._hwcap


@pytest.fixture
def fresh_features() -> Iterator[None]:
    cpu_features.cache_clear()
    yield
    cpu_features.cache_clear()


DOTPROD = b"hw.optional.arm.FEAT_DotProd"


@pytest.mark.usefixtures("fresh_features")
@pytest.mark.parametrize(
    ("system", "machine", "library", "expected"),
    [
        ("linux", "aarch64", FakeLibrary(hwcap=1 << 20), NEON_DOTPROD),
        ("linux", "aarch64", FakeLibrary(hwcap=~(1 << 20)), NEON),
        ("darwin", "arm64", FakeLibrary(sysctl={DOTPROD: 1}), NEON_DOTPROD),
        ("darwin", "arm64", FakeLibrary(sysctl={DOTPROD: 0}), NEON),
        ("darwin", "arm64", FakeLibrary(), NEON),
        ("win32", "arm64", FakeLibrary(), NEON),
    ],
    ids=["linux", "linux, old", "mac", "mac, no", "mac, unknown", "windows"],
)
@pytest.mark.parametrize("llvm_knows", [True, False])
def test_arm_asks_the_system_and_not_llvm(
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    library: FakeLibrary,
    expected: Isa,
    llvm_knows: bool,
) -> None:
    monkeypatch.setattr(cpu, "x86", lambda: None)
    monkeypatch.setattr(cpu, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"dotprod": llvm_knows})
    assert current_isa() is expected
    assert "neon" in cpu_features()


@pytest.mark.usefixtures("fresh_features")
def test_features_that_are_absent_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "x86", lambda: None)
    monkeypatch.setattr(cpu, "machine", lambda: "x86_64")
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"avx2": True, "fma": False})
    assert cpu_features() == {"avx2"}
