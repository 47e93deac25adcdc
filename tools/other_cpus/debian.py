"""Debian packages of any architecture, unpacked into a folder: no root, nothing is installed.

apt keeps its lists, cache and status in the folder, too. No package counts as installed there, so
it brings everything that a package needs.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.other_cpus.errors import UnavailableError


def native_architecture() -> str:
    """Returns Debian's name for this machine's architecture."""
    return _output("dpkg", "--print-architecture").strip()


def fetch(packages: Sequence[str], architecture: str, folder: Path) -> Path:
    """Returns the folder into which the packages, and what they need, are unpacked.

    They come from the machine's own package sources. Raises UnavailableError where there is no apt,
    or where its sources lack the packages.
    """
    root, work = folder / "root", folder / "apt"
    stamp, wanted = folder / ".fetched", " ".join([architecture, *packages])
    if stamp.exists() and stamp.read_text() == wanted:
        return root
    print(f"fetching {', '.join(packages)} for {architecture} ...", flush=True)
    shutil.rmtree(root, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True, exist_ok=True)
    (work / "status").write_text("")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",  # the folder is ours: apt needn't become another user
        "Dir::State": work,
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Cache::archives": work / "cache" / "archives",
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    _output("apt-get", "-qq", *options, "update")
    install = ("install", "--yes", "--download-only", "--no-install-recommends")
    _output("apt-get", "-qq", *options, *install, *packages)
    for archive in sorted((work / "cache" / "archives").glob("*.deb")):
        _output("dpkg", "-x", str(archive), str(root))
    shutil.rmtree(work)
    stamp.write_text(wanted)
    return root


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise UnavailableError(f"there is no {command[0]}: this is neither Debian nor like it")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UnavailableError(f"{' '.join(last)} ({command[0]} failed)")
    return done.stdout
