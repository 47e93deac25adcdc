"""What runs another CPU's programs: QEMU, and for 64-bit ARM a Python with the tests' packages."""

import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tools.other_cpus.debian import fetch, native_architecture
from tools.other_cpus.errors import UnavailableError

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "other_cpus"


def qemu(machine: str) -> Path:
    """Returns the emulator of programs for a machine ("aarch64", "x86_64"): installed, or fetched.

    Raises UnavailableError where there is none and none can be fetched.
    """
    if platform.system() != "Linux":
        raise UnavailableError("only Linux can run single programs of another CPU")
    names = (f"qemu-{machine}-static", f"qemu-{machine}")
    for name in names:
        found = shutil.which(name)
        if found:
            return Path(found)
    try:
        root = fetch(["qemu-user-static"], native_architecture(), BUILD / "qemu")
    except UnavailableError as error:
        raise UnavailableError(
            f"neither {' nor '.join(names)} is installed, and apt can't fetch it: {error}; install "
            "qemu-user-static (elsewhere it may be called qemu-user)"
        ) from None
    for name in names:
        if (root / "usr" / "bin" / name).exists():
            return root / "usr" / "bin" / name
    raise UnavailableError(f"the package qemu-user-static has no {names[0]}")


class Arm64Python:
    """A Python for 64-bit ARM with all that the tests import: ``root`` is its file system."""

    def __init__(self) -> None:
        folder = BUILD / "arm64-python"
        try:
            self.root = fetch(["python3", "libstdc++6", "libgomp1"], "arm64", folder)
        except UnavailableError as error:
            raise UnavailableError(
                f"apt can't fetch a Python for arm64: {error}; it takes Debian 12 or newer, whose "
                "package sources have all architectures"
            ) from None
        self.program = (self.root / "usr" / "bin" / "python3").resolve()
        version = self.program.name.removeprefix("python")
        if tuple(map(int, version.split("."))) < (3, 11):
            raise UnavailableError(f"this system's Python is {version}, and edgeqwen needs 3.11")
        self._packages = _installed(version, folder / "packages")
        self._sources = _mapped_sources(folder / "sources")

    @property
    def path(self) -> list[Path]:
        """Where it imports from."""
        return [self._sources, self._packages, ROOT]


def _installed(version: str, folder: Path) -> Path:
    """Returns the folder with what pyproject.toml asks for, as wheels for 64-bit ARM."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    stamp, contents = folder.with_name(".installed"), "\n".join([version, *wanted])
    if stamp.exists() and stamp.read_text() == contents:
        return folder
    print(f"installing packages for Python {version} on arm64 ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    # Debian 12 has version 2.36 of the C library, and runs what was built for any before.
    names = [f"manylinux_2_{minor}" for minor in range(36, 16, -1)] + ["manylinux2014"]
    options = ["--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
    options += ["--root-user-action=ignore", "--only-binary=:all:", "--implementation=cp"]
    options += [f"--python-version={version}", *(f"--platform={name}_aarch64" for name in names)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), *wanted],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    stamp.write_text(contents)
    return folder


def _mapped_sources(folder: Path) -> Path:
    """Returns a folder where edgeqwen lies as it installs: its three packages in one."""
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "edgeqwen"
    package.mkdir(parents=True)
    for source in ((ROOT / "edgeqwen").iterdir(), [ROOT / "quant", ROOT / "cli"]):
        for path in source:
            if path.name != "__pycache__":
                (package / path.name).symlink_to(path)
    return folder
