"""What CPUID tells is what LLVM finds out, on every core."""

import os
import sys

import llvmlite.binding as llvm
import pytest

from edgeqwen.simd import cpuid
from edgeqwen.simd.cpu import cpu_features, cpu_identity, cpu_name

needs_cpuid = pytest.mark.skipif(cpuid.x86() is None, reason="this CPU is asked by LLVM")


@needs_cpuid
@pytest.mark.parametrize("name", cpuid.FEATURES)
def test_features_are_those_that_llvm_finds(name: str) -> None:
    assert (name in cpu_features()) == bool(llvm.get_host_cpu_features().get(name))


@needs_cpuid
def test_every_core_is_the_same_cpu() -> None:
    cores = os.sched_getaffinity(0)
    known = cpuid.x86()
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})
            assert cpuid.x86.__wrapped__() == known
    finally:
        os.sched_setaffinity(0, cores)


def test_it_has_a_name_and_an_identity() -> None:
    assert cpu_name()
    assert len(cpu_identity()) > 20


@needs_cpuid
def test_without_executable_memory_llvm_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(13, "not allowed")

    monkeypatch.setattr(cpuid.CodeMemory, "seal", refuse)
    assert cpuid.x86.__wrapped__() is None
    monkeypatch.setattr("edgeqwen.simd.cpu.x86", lambda: None)
    features = {name for name, is_there in llvm.get_host_cpu_features().items() if is_there}
    assert cpu_features.__wrapped__() == features
    assert cpu_name() == llvm.get_host_cpu_name()


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_are_left_to_llvm(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert not cpuid.is_supported.__wrapped__()
