"""QEMU is taken from the system, or fetched; without it, the message says what to install."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.other_cpus import emulators
from tools.other_cpus.emulators import Arm64Python, qemu
from tools.other_cpus.errors import UnavailableError


@pytest.fixture(autouse=True)
def _linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(emulators.platform, "system", lambda: "Linux")
    monkeypatch.setattr(emulators.shutil, "which", lambda _: None)
    monkeypatch.setattr(emulators, "native_architecture", lambda: "amd64")
    monkeypatch.setattr(emulators, "BUILD", tmp_path)


def fetching(monkeypatch: pytest.MonkeyPatch, *files: Path, error: str = "") -> None:
    """Pretends that packages consist of some empty files, or can't be fetched."""

    def fetch(packages: Sequence[str], architecture: str, folder: Path) -> Path:
        if error:
            raise UnavailableError(error)
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        return folder

    monkeypatch.setattr(emulators, "fetch", fetch)


def test_an_installed_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        emulators.shutil, "which", lambda name: f"/bin/{name}" if "static" not in name else None
    )
    assert qemu("aarch64") == Path("/bin/qemu-aarch64")


def test_else_it_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetching(monkeypatch, Path("usr/bin/qemu-x86_64-static"))
    assert qemu("x86_64") == tmp_path / "qemu" / "usr" / "bin" / "qemu-x86_64-static"
    with pytest.raises(UnavailableError, match="qemu-user-static has no qemu-aarch64-static"):
        qemu("aarch64")


def test_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fetching(monkeypatch, error="there is no apt-get")
    with pytest.raises(UnavailableError) as caught:
        qemu("aarch64")
    assert str(caught.value) == (
        "neither qemu-aarch64-static nor qemu-aarch64 is installed, and apt can't fetch it: there "
        "is no apt-get; install qemu-user-static (elsewhere it may be called qemu-user)"
    )


def test_other_systems_can_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulators.platform, "system", lambda: "Darwin")
    with pytest.raises(UnavailableError, match="only Linux"):
        qemu("aarch64")


def test_without_a_python_for_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    fetching(monkeypatch, error="E: 404 Not Found (apt-get failed)")
    with pytest.raises(UnavailableError) as caught:
        Arm64Python()
    assert str(caught.value) == (
        "apt can't fetch a Python for arm64: E: 404 Not Found (apt-get failed); it takes Debian 12 "
        "or newer, whose package sources have all architectures"
    )


def test_an_old_python_will_not_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetching(monkeypatch, Path("usr/bin/python3.9"))
    link = tmp_path / "arm64-python" / "usr" / "bin" / "python3"
    link.parent.mkdir(parents=True)
    link.symlink_to("python3.9")
    with pytest.raises(UnavailableError, match=r"Python is 3\.9, and edgeqwen needs 3\.11"):
        Arm64Python()


def test_packages_are_installed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetching(monkeypatch, Path("usr/bin/python3.11"))
    link = tmp_path / "arm64-python" / "usr" / "bin" / "python3"
    link.parent.mkdir(parents=True)
    link.symlink_to("python3.11")
    calls: list[list[str]] = []
    monkeypatch.setattr(
        emulators.subprocess, "run", lambda command, **options: calls.append(command)
    )
    python = Arm64Python()
    assert python.program.name == "python3.11"
    # As it installs: quant and cli lie within, and tests are found beside.
    sources, packages, root = python.path
    assert (sources / "edgeqwen" / "quant" / "__init__.py").exists()
    assert (sources / "edgeqwen" / "cli" / "__init__.py").exists()
    assert (sources / "edgeqwen" / "simd" / "isa.py").exists()
    assert (root / "tests" / "conftest.py").exists()
    (command,) = calls
    assert command[command.index("--target") + 1] == str(packages)
    assert {"--only-binary=:all:", "--python-version=3.11"} < {*command}
    assert "--platform=manylinux2014_aarch64" in command
    assert any(word.startswith("numba") for word in command)
    assert any(word.startswith("hypothesis") for word in command)
    Arm64Python()
    assert len(calls) == 1
