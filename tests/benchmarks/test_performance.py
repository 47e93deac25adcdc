"""The performance benchmark: who has a turn when, what is summed up, how runs are merged."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

import edgeqwen
from benchmarks import machine, performance, performance_runs, scaling, versus_llama_cpp
from benchmarks.first_token import time_first_token
from benchmarks.performance_runs import PACKED, Cell, compare
from benchmarks.spinner import busy_process
from edgeqwen.quant import quantize
from tests.benchmarks.performance_report import MACHINE, record
from tests.hf_checkpoints import write_checkpoint

WORK = {
    "weight_bytes": 300_000_000,
    "integer_macs": 100_000_000,
    "float_macs": 0,
    "cache_bytes": 10_000,
    "attention_macs": 1000,
}


class FakeWorker:
    """Takes 2 s for a prefill and 4 s for a decode as edgeqwen, twice as long as llama.cpp."""

    log: list[Any]

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self._slow = 1 if runtime == "edgeqwen" else 2

    def open(self, path: Path, **options: Any) -> None:
        self.log.append((self.runtime, "open", options))
        self._slow *= 2 if options.get("load") else 1

    def work(self) -> dict[str, int]:
        return WORK

    def prefill(self, depth: int, n: int) -> float:
        self.log.append((self.runtime, "prefill", depth, n))
        return 2.0 * self._slow

    def decode(self, depth: int, n: int) -> float:
        self.log.append((self.runtime, "decode", depth, n))
        return 4.0 * self._slow

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append((self.runtime, "close"))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Workers are fakes; returns what they are asked for, in turn."""
    for module in (performance_runs, versus_llama_cpp):
        monkeypatch.setattr(module, "SETTLE_S", 0.0)
    monkeypatch.setattr(performance_runs, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "log", [], raising=False)
    return FakeWorker.log


def options(*arguments: str) -> Any:
    return performance.parse(["-t", "2", "--rounds", "2", *arguments])


def test_runtimes_take_turns_cell_by_cell(log: list[Any]) -> None:
    cells = [Cell(100, 20, 0), Cell(100, 20, 7)]
    found = compare(Path("m.gguf"), cells, 2, 2, MACHINE)
    opened = {"n_threads": 2, "n_context": 107, "n_prompt": 16}
    assert log[:2] == [("edgeqwen", "open", opened), ("llama.cpp", "open", opened)]
    # A round that doesn't count, and two that do.
    assert log[2:-2] == [
        (name, *what)
        for depth in (0, 7)
        for _ in range(3)
        for name in ("edgeqwen", "llama.cpp")
        for what in (("prefill", depth, 100), ("decode", depth, 20))
    ]
    assert [(cell["n_prompt"], cell["n_generate"], cell["depth"]) for cell in found] == [
        (100, 20, 0),
        (100, 20, 7),
    ]
    assert found[0]["edgeqwen"] == {"prefill_tps": 50.0, "decode_tps": 5.0}
    assert found[0]["ratio"] == {"prefill_tps": 2.0, "decode_tps": 2.0}
    assert found[0]["rounds"]["llama.cpp"]["decode_tps"] == [2.5, 2.5]
    # 300 MB five times a second, of 30 GB/s; 100 million products 50 times, of 400 billion.
    assert found[1]["roofline"]["decode"]["share"] == pytest.approx(0.05, rel=0.01)
    assert found[1]["roofline"]["prefill"]["share"] == pytest.approx(0.0125)


def test_depths_and_threads(log: list[Any]) -> None:
    path = Path("m.gguf")
    found = performance_runs.depth(path, options("--depths", "0", "9"), MACHINE)
    assert [cell["depth"] for cell in found["cells"]] == [0, 9]  # type: ignore[index]
    found = performance_runs.table(path, options("--deep", "300"), MACHINE)
    assert [cell["depth"] for cell in found["cells"]] == [0, 300]  # type: ignore[index]
    assert all("roofline" in cell for cell in found["cells"])  # type: ignore[index]
    log.clear()
    found = performance_runs.threads(path, options("--thread-counts", "1", "3"), MACHINE)
    assert [cell["n_threads"] for cell in found["cells"]] == [1, 3]  # type: ignore[index]
    assert [entry[2]["n_threads"] for entry in log if entry[1] == "open"] == [1, 1, 3, 3]


pins = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system can't keep a process on a CPU"
)


@pins
def test_a_busy_neighbour_comes_and_goes_in_every_round(
    log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def neighbour(cpu: int | None = None) -> Iterator[None]:
        log.append(("neighbour", cpu))
        yield
        log.append(("quiet",))

    monkeypatch.setattr(performance_runs, "busy_process", neighbour)
    found = performance_runs.busy(Path("m.gguf"), options("--busy-tokens", "8"), MACHINE)
    assert found is not None
    conditions = [entry for entry in log[4:-2] if entry[0] in ("neighbour", "quiet")]
    pinned = [("neighbour", max(os.sched_getaffinity(0))), ("quiet",)]
    assert conditions == [("neighbour", None), ("quiet",), *pinned] * 2
    decode = [("edgeqwen", "decode", 0, 8), ("llama.cpp", "decode", 0, 8)]
    assert log[4:8] == [*decode, ("neighbour", None), decode[0]]
    assert found["decode_tps"]["idle"] == {"edgeqwen": 2.0, "llama.cpp": 1.0}
    assert found["of_idle"]["pinned"] == {"edgeqwen": 1.0, "llama.cpp": 1.0}
    assert set(found["of_idle"]) == {"unpinned", "pinned"}


@pins
def test_a_spinning_process_ends_with_its_context() -> None:
    cpu = max(os.sched_getaffinity(0))
    with busy_process(cpu):
        pass
    # And when its parent is gone: its input closes.
    command = [sys.executable, "-m", "benchmarks.spinner"]
    done = subprocess.run(
        command, cwd=machine.ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, b"spinning\n")


def test_the_head_is_measured_where_it_can_be_screened(
    log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgeqwen, "load", lambda path: None)
    assert performance_runs.head(Path("m.gguf"), options(), MACHINE) is None
    assert log == []
    monkeypatch.setattr(edgeqwen, "load", lambda path, *, full_head=False: None)
    found = performance_runs.head(Path("m.gguf"), options("-n", "20"), MACHINE)
    assert found is not None
    opened = [entry[2]["load"] for entry in log if entry[1] == "open"]
    assert opened == [{}, {"full_head": True}]
    assert (found["screened"], found["full"]) == ({"decode_tps": 5.0}, {"decode_tps": 2.5})
    assert found["ratio"] == {"decode_tps": 2.0}


def test_starts_take_turns_and_the_first_round_does_not_count(
    log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(runtime: str, path: Path, n_threads: int) -> dict[str, Any]:
        log.append((runtime, path.name, n_threads))
        n = len(log)
        return {"first_token_s": float(n), "peak_rss_bytes": 10 * n, "private_bytes": n, "text": ""}

    monkeypatch.setattr(performance_runs, "time_first_token", timed)
    monkeypatch.setattr(performance_runs, "packed_file", lambda path: Path("packed.gguf"))
    found = performance_runs.start(Path("m.gguf"), options(), MACHINE)
    assert found is not None
    turn = [("edgeqwen", "m.gguf", 2), ("edgeqwen", "packed.gguf", 2), ("llama.cpp", "m.gguf", 2)]
    assert log == turn * 3
    assert list(found["contestants"]) == ["edgeqwen", PACKED, "llama.cpp"]
    ours = found["contestants"]["edgeqwen"]
    assert (ours["first_token_s"], ours["peak_rss_bytes"], ours["private_bytes"]) == (5.5, 70, 7)
    monkeypatch.setattr(performance_runs, "packed_file", lambda path: None)
    found = performance_runs.start(Path("m.gguf"), options(), MACHINE)
    assert list(found["contestants"]) == ["edgeqwen", "llama.cpp"]  # type: ignore[index]


def test_a_file_is_packed_where_there_is_such_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeqwen.cli.app import app

    source, ran = tmp_path / "m.gguf", []
    source.write_bytes(b"weights")

    def run(command: list[str], **_: Any) -> None:
        ran.append(command[1:])
        Path(command[-1]).write_bytes(b"tiles")

    monkeypatch.setattr(performance_runs.subprocess, "run", run)
    monkeypatch.setattr(app, "registered_commands", [SimpleNamespace(name="chat")])
    assert performance_runs.packed_file(source) is None
    monkeypatch.setattr(app, "registered_commands", [SimpleNamespace(name="pack")])
    packed = tmp_path / "m-packed.gguf"
    assert performance_runs.packed_file(source) == packed
    assert ran == [["-m", "edgeqwen", "pack", str(source), "-o", str(packed)]]


def test_the_first_token_of_a_process(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf", hidden_size=256, n_heads=4, n_kv_heads=2)
    model = tmp_path / "tiny.gguf"
    quantize(tmp_path / "hf", model, "q4_0")
    found = time_first_token("edgeqwen", model, 1)
    assert found["first_token_s"] > 0.05
    assert found["peak_rss_bytes"] > 1 << 24
    assert isinstance(found["text"], str)
    with pytest.raises(RuntimeError, match="the first token of edgeqwen ended with code 1"):
        time_first_token("edgeqwen", tmp_path / "nothing.gguf", 1)


def test_partial_runs_are_merged(tmp_path: Path) -> None:
    figures = tmp_path / "results" / "performance.json"
    performance.merge(figures, "busy", "0.5B Q4_0", record(n=1))
    performance.merge(figures, "table", "1.5B Q4_0", record(n=2))
    performance.merge(figures, "table", "0.5B Q4_0", record(n=3))
    performance.merge(figures, "table", "1.5B Q4_0", {**record(n=4), "trial": True})
    parts = json.loads(figures.read_text("utf-8"))["parts"]
    assert list(parts) == ["table", "busy"]
    assert list(parts["table"]) == ["0.5B Q4_0", "1.5B Q4_0"]
    assert [found["n"] for found in parts["table"].values()] == [3, 4]
    assert parts["busy"]["0.5B Q4_0"] == record(n=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "table,chair"], "--only: chair; choose from table, depth"),
        (["--shapes", "9B"], "--shapes: 9B; choose from 0.5B, 1.5B"),
        (["--deep", "-1"], "-1 is no depth: it counts tokens, from 0"),
        (["--depths", "0", "-5"], "-5 is no depth"),
        (["--rounds", "0"], "0 is not a positive number"),
        (["--from-json", "--json", "none.json"], "none.json is not a file; measure first"),
    ],
)
def test_senseless_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        performance.parse(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ""),
        (["--only", "table", "--shapes", "0.5B"], ""),
        (["-n", "32", "--depths", "0", "64"], " --generate 32 --depths 0 64"),
        (["--trial", "--only", "start"], " --trial"),
    ],
)
def test_the_command_names_what_differs_from_the_defaults(
    arguments: list[str], expected: str
) -> None:
    options = performance.parse(arguments)
    assert performance.command(options) == f"python -m benchmarks.performance{expected}"


def test_only_what_is_asked_for_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def part(name: str) -> performance.Part:
        def measure(path: Path, options: Any, about: Any) -> dict[str, Any] | None:
            measured.append((name, path.name))
            return None if name == "head" else {"cells": []}

        return measure

    def made(shape: str, type: str) -> Path:
        (tmp_path / f"{shape}-{type}").write_bytes(b"123")
        return tmp_path / f"{shape}-{type}"

    monkeypatch.setattr(performance, "PARTS", {name: part(name) for name in performance.PARTS})
    monkeypatch.setattr(performance, "model_file", made)
    monkeypatch.setattr(performance, "llama_cpp_features", lambda: "AVX2 = 1")
    later = {**MACHINE, "load_average": 9.0, "commit": "0123456789ab+changes"}
    monkeypatch.setattr(machine, "describe", lambda n: later)
    monkeypatch.setattr(machine, "load_average", lambda: 0.25)
    monkeypatch.setattr(machine, "commit", lambda: "0123456789ab")
    figures = tmp_path / "performance.json"
    asked = options("--only", "head,table", "--shapes", "0.5B", "--json", str(figures))
    performance.measure(asked)
    assert measured == [("head", "0.5B-q4_0"), ("table", "0.5B-q4_0"), ("table", "0.5B-q8_0")]
    parts = json.loads(figures.read_text("utf-8"))["parts"]
    assert list(parts) == ["table"]
    found = parts["table"]["0.5B Q8_0"]
    assert found["model"] == {"shape": "0.5B", "type": "q8_0", "file": "0.5B-q8_0", "bytes": 3}
    # What was before all of it, not what this benchmark has made of it.
    assert found["machine"]["load_average"] == 0.25
    assert found["machine"]["commit"] == "0123456789ab"
    assert found["machine"]["llama_cpp_features"] == "AVX2 = 1"
    assert found["command"] == "python -m benchmarks.performance --rounds 2"
    assert "head: there is nothing to measure here" in capsys.readouterr().out


@pytest.mark.peers
def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
    pytest.importorskip("matplotlib", reason="draws the plots (the plots extra)")
    if "AMX_INT8" in versus_llama_cpp.llama_cpp_features():
        pytest.skip("this build of llama.cpp crashes on CPUs with AMX: benchmarks/README.md")
    write_checkpoint(tmp_path / "hf", hidden_size=256, n_heads=4, n_kv_heads=2, max_context=512)
    model = tmp_path / "tiny.gguf"
    quantize(tmp_path / "hf", model, "q4_0")
    monkeypatch.setattr(performance, "model_file", lambda shape, type: model)
    monkeypatch.setattr(performance, "MODELS", (("0.5B", "q4_0"),))
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 22)
    monkeypatch.setattr(scaling, "CORES", (1, 2, 4, 8, 16))
    figures = tmp_path / "performance.json"
    trial = {**performance.TRIAL, "deep": 40, "depths": [0, 40], "seconds": 0.02}
    monkeypatch.setattr(performance, "TRIAL", trial)
    performance.main(["--trial", "-t", "2", "--json", str(figures), "--docs", str(tmp_path)])
    parts = json.loads(figures.read_text("utf-8"))["parts"]
    expected = set(performance.PARTS) - (
        {"head"} if not performance_runs.screens_the_head() else set()
    )
    if machine.n_usable_cpus() == 1:
        expected -= {"scaling"}
    assert set(parts) == expected
    assert str(tmp_path) not in figures.read_text("utf-8")
    for part in ("table", "depth", "threads"):
        for cell in parts[part]["0.5B Q4_0"]["cells"]:
            assert min(cell["edgeqwen"].values()) > 0
            assert min(cell["llama.cpp"].values()) > 0
    page = (tmp_path / "performance.md").read_text("utf-8")
    assert "**Figures of a trial run" in page
    assert (tmp_path / "performance-table.svg").is_file()
