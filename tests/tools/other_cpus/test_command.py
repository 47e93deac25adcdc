"""The command that runs the tests for other CPUs: what it prints, and its exit status."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.other_cpus.errors import UnavailableError

pytest.importorskip("resource", reason="needs a system like Unix")
from tools.other_cpus import __main__ as command

SHELL = """#!/bin/sh
case $1 in
    -c) echo "$CHOSEN"; case $CHOSEN in *Error*) echo "$CHOSEN" >&2; exit 1;; esac;;
    *) echo "first line"; echo "$RESULT"; exit "$STATUS";;
esac
"""


@dataclass
class FakeRun:
    """A run whose Python is a script."""

    folder: Path
    emulated: str = "aarch64"
    chosen: str = "neon"
    result: str = "5 passed in 1.00s"
    status: int = 0
    isa = "neon"
    title = "neon, emulated"

    def launcher(self) -> list[str]:
        path = self.folder.parent / f"{self.folder.name}.sh"
        path.write_text(SHELL)
        path.chmod(0o755)
        return [str(path)]

    def environment(self) -> dict[str, str]:
        return {"CHOSEN": self.chosen, "RESULT": self.result, "STATUS": str(self.status)}

    def tests(self) -> list[str]:
        return ["-m", "pytest"]


class UnavailableRun(FakeRun):
    def launcher(self) -> list[str]:
        raise UnavailableError("install qemu-user-static")


def run(monkeypatch: pytest.MonkeyPatch, *runs: FakeRun, arguments: tuple[str, ...] = ()) -> int:
    monkeypatch.setattr(command, "GROUPS", {"arm64": runs})
    return command.main(["arm64", *arguments])


def test_passed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, FakeRun(tmp_path / "a"), FakeRun(tmp_path / "b")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "arm64: running the tests on 2 CPUs, some minutes ..."
    assert lines.count("5 passed in 1.00s") == 2
    assert f"neon, emulated: 0 s, all of it in {tmp_path / 'a' / 'log.txt'}" in lines
    assert "first line" not in lines
    assert (tmp_path / "a" / "log.txt").read_text() == "first line\n5 passed in 1.00s\n"


def test_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = FakeRun(tmp_path / "b", result="1 failed", status=1)
    assert run(monkeypatch, FakeRun(tmp_path / "a"), bad, arguments=("--or-skip",)) == 1
    assert "\nfailed with 1\nfirst line\n1 failed\n" in capsys.readouterr().out


def test_another_instruction_set_than_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, FakeRun(tmp_path / "a", chosen="generic")) == 1
    assert "neon, emulated: failed: there, edgeqwen chooses\ngeneric\n" in capsys.readouterr().out
    assert not (tmp_path / "a" / "log.txt").exists()


def test_a_cpu_that_lacks_the_instructions_skips_compiled_runs_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = "CpuError: this CPU lacks avxvnni"
    assert run(monkeypatch, FakeRun(tmp_path / "a", emulated="", chosen=lacking)) == 0
    assert f"neon, emulated: skipped: {lacking}" in capsys.readouterr().out
    assert run(monkeypatch, FakeRun(tmp_path / "a", chosen=lacking)) == 1


def test_compiled_runs_compile_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "cache").mkdir(parents=True)
    assert run(monkeypatch, FakeRun(tmp_path / "a", emulated=""), FakeRun(tmp_path / "b")) == 0
    assert not (tmp_path / "a" / "cache").exists()
    assert (tmp_path / "b" / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "word", "status"), [((), "error", 1), (("--or-skip",), "skipped", 0)]
)
def test_what_this_machine_can_not_run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    word: str,
    status: int,
) -> None:
    unavailable = UnavailableRun(tmp_path / "b")
    assert run(monkeypatch, FakeRun(tmp_path / "a"), unavailable, arguments=arguments) == status
    assert capsys.readouterr().out == f"arm64: {word}: install qemu-user-static\n"
