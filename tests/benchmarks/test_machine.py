"""What the benchmarks' JSON says about a machine."""

import json
from pathlib import Path

import pytest

from benchmarks import machine


def test_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 24)
    about = machine.describe(1)
    assert json.loads(json.dumps(about)) == about
    assert about["cpu"]
    assert 1 <= about["n_usable_cpus"] <= about["n_cpus"]
    assert about["versions"]["numpy"]
    assert about["read_gb_per_s"] > 0.1


def test_commit_of_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() == "unknown"
