"""Which CPUs the kernels are tested for: all instruction sets, by tests that there are."""

import tomllib
from itertools import chain

import pytest

from edgeqwen.simd.isa import ISAS
from tools.other_cpus import runs
from tools.other_cpus.emulators import ROOT
from tools.other_cpus.runs import GROUPS, KERNEL_TESTS, PRODUCT_TESTS, Run

ALL = list(chain(*GROUPS.values()))
each_run = pytest.mark.parametrize("run", ALL, ids=lambda run: run.name)


def test_every_instruction_set_is_tested() -> None:
    # The machine of whoever runs the tests may have any of x86's; the best is none of the lesser.
    assert {run.isa for run in ALL} == {*ISAS} - {"avx512-vnni"}


def test_every_arm_is_emulated() -> None:
    arm = {isa.name for isa in ISAS.values() if "neon" in isa.features}
    assert {run.isa for run in GROUPS["arm64"] if run.emulated == "aarch64"} == arm


def test_every_test_exists() -> None:
    assert all((ROOT / path).exists() for path in (*KERNEL_TESTS, *PRODUCT_TESTS))


def test_no_two_share_a_folder() -> None:
    assert len({run.folder for run in ALL}) == len(ALL)
    caches = [run.environment()["EDGEQWEN_CACHE_DIR"] for run in ALL]
    apart = [cache for cache, run in zip(caches, ALL, strict=True) if not run.emulated]
    assert len(apart) == len(set(apart)) == len(GROUPS["x86"])
    # Emulated CPUs find only what was compiled for them; one folder serves all.
    assert len(set(caches)) == len(apart) + 1


@each_run
def test_what_is_left_out(run: Run) -> None:
    """Only emulation leaves tests out, by markers that pyproject.toml tells the meaning of."""
    arguments = run.tests()
    if not run.emulated:
        assert "-k" not in arguments
        assert arguments.count("-m") == 1  # python -m pytest
        return
    markers = arguments[-3].removeprefix("not ").split(" and not ")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    known = [line.split(":")[0] for line in project["tool"]["pytest"]["ini_options"]["markers"]]
    assert set(markers) <= set(known)
    # Nothing is left of the one instruction set that must be tested, if its name is among them.
    assert run.isa not in arguments[-1].removeprefix("not ").split(" and not ")


@each_run
def test_the_environment_is_the_runs_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEQWEN_ISA", "EDGEQWEN_DEBUG", "NUMBA_CPU_NAME", "NUMBA_OPT"):
        monkeypatch.setenv(name, "mine")
    found = run.environment()
    assert "mine" not in [v for k, v in found.items() if k.startswith(("EDGEQWEN", "NUMBA"))]
    # An emulated CPU is found like a real one; otherwise LLVM is told all of it.
    told = {"EDGEQWEN_ISA", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"}
    assert told & {*found} == (set() if run.emulated else told)


def test_emulated_programs_are_started_by_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "qemu", lambda machine: ROOT / f"qemu-{machine}")
    run = Run("some", "generic", "Nehalem", emulated="x86_64")
    emulator, *arguments = run.launcher()
    assert emulator == str(ROOT / "qemu-x86_64")
    assert arguments[:2] == ["-cpu", "Nehalem"]
