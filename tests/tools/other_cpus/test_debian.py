"""Fetching Debian packages: what is asked of apt, what is kept, and why it may be impossible."""

import os
from pathlib import Path

import pytest

from tools.other_cpus import debian
from tools.other_cpus.debian import fetch
from tools.other_cpus.errors import UnavailableError

APT = """#!/bin/sh
echo "$*" >> "$CALLS"
for word; do case $word in -oDir::Cache::archives=*) folder=${word#*=};; esac; done
case $* in *download-only*) touch "$folder/one.deb" "$folder/two.deb";; esac
"""
DPKG = """#!/bin/sh
mkdir -p "$3" && touch "$3/$(basename "$2").unpacked"
"""
BROKEN = """#!/bin/sh
echo "E: first" >&2
echo "E: Unable to locate package python3" >&2
exit 100
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for programs, the first in which they are looked for."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return folder


def write(folder: Path, **programs: str) -> None:
    for name, text in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_packages_are_fetched_once(programs: Path, tmp_path: Path) -> None:
    write(programs, apt_get=APT, dpkg=DPKG)
    folder, calls = tmp_path / "folder", tmp_path / "calls"
    root = fetch(["one", "two"], "arm64", folder)
    assert sorted(file.name for file in root.iterdir()) == [
        "one.deb.unpacked",
        "two.deb.unpacked",
    ]
    update, install = calls.read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" --no-install-recommends one two")
    for call in (update, install):
        assert "-oAPT::Architectures=arm64" in call
        # Nothing of the system's own is written.
        assert f"-oDir::State={folder}" in call
        assert f"-oDir::Cache={folder}" in call
    assert fetch(["one", "two"], "arm64", folder) == root
    assert len(calls.read_text().splitlines()) == 2
    fetch(["one"], "arm64", folder)
    assert len(calls.read_text().splitlines()) == 4


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_what_apt_says_is_told(programs: Path, tmp_path: Path) -> None:
    write(programs, apt_get=BROKEN)
    with pytest.raises(UnavailableError) as caught:
        fetch(["python3"], "arm64", tmp_path / "folder")
    assert str(caught.value) == "E: Unable to locate package python3 (apt-get failed)"
    # Nothing counts as done.
    with pytest.raises(UnavailableError):
        fetch(["python3"], "arm64", tmp_path / "folder")


def test_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda _: None)
    with pytest.raises(UnavailableError) as caught:
        fetch(["python3"], "arm64", tmp_path / "folder")
    assert str(caught.value) == "there is no apt-get: this is neither Debian nor like it"
