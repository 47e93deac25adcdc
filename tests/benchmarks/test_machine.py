"""What the benchmarks' JSON says about a machine."""

import json
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.page_parts import busy_text


def test_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 24)
    about = machine.describe(1)
    assert json.loads(json.dumps(about)) == about
    assert about["cpu"]
    assert 1 <= about["n_usable_cpus"] <= about["n_cpus"]
    assert about["versions"]["numpy"]
    for limit in ("read_gb_per_s", "integer_gmac_per_s", "float_gmac_per_s"):
        assert about[limit] > 0.1


def test_commit_of_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() == "unknown"


def test_busy_cpus_are_those_at_work_while_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(1000, 5000), (1030, 5170)])
    monkeypatch.setattr(machine, "_cpu_times", lambda: next(times))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    assert machine.busy_cpus(0.0) == 4 * 30 / 200


def test_a_system_that_counts_no_times_is_taken_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpu_times", lambda: None)
    assert machine.busy_cpus(0.0) == 0.0


def test_times_of_the_cpus_grow() -> None:
    first = machine._cpu_times()
    if first is None:
        pytest.skip("this system has no /proc/stat")
    machine.busy_cpus(0.05)
    second = machine._cpu_times()
    assert second is not None
    assert sum(second) > sum(first)
    assert second[1] >= first[1] > 0


@pytest.mark.parametrize(
    ("load", "busy", "expected"),
    [
        (0.7, 0.1, ""),
        (0.8, 0.0, "The machine was busy (load average 0.8): figures of speed are not fit to"),
        (0.0, 0.2, "The machine was busy (0.2 CPUs at work for others): figures"),
        (2.0, 1.5, "The machine was busy (load average 2.0, 1.5 CPUs at work for others): "),
    ],
)
def test_a_busy_machine_is_named(load: float, busy: float, expected: str) -> None:
    text = busy_text({"load_average": load, "busy_cpus": busy})
    assert text.startswith(expected)
    assert bool(text) == bool(expected)
