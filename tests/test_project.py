"""The project's own files agree with each other: packages, versions, the folders they map."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import edgeqwen

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_package_is_listed() -> None:
    # One that is forgotten is missing in wheels only, where no other test looks.
    found = {
        ".".join((prefix, *folder.relative_to(top).parts))
        for top, prefix in (
            (ROOT / "edgeqwen", "edgeqwen"),
            (ROOT / "quant", "edgeqwen.quant"),
            (ROOT / "cli", "edgeqwen.cli"),
        )
        for folder in (top, *top.rglob("*"))
        if (folder / "__init__.py").exists()
    }
    assert sorted(found) == PYPROJECT["tool"]["setuptools"]["packages"]


def test_every_data_file_is_listed() -> None:
    # Without it, a wheel would lack the file.
    found = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "edgeqwen").rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    listed = {
        f"{package.replace('.', '/')}/{name}"
        for package, names in PYPROJECT["tool"]["setuptools"]["package-data"].items()
        for name in names
    }
    assert found == listed


def test_the_version_is_the_same_everywhere() -> None:
    version = PYPROJECT["project"]["version"]
    assert edgeqwen.__version__ == version == importlib.metadata.version("edgeqwen")
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert next(v for v in versions if v != "Unreleased") == version
