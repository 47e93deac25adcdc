"""The comparison with llama.cpp: how it measures, sums up and reports, whatever the figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import versus_llama_cpp as versus
from benchmarks.runtimes import NAMES
from benchmarks.worker import Worker
from edgeqwen.quant import quantize
from tests.hf_checkpoints import write_checkpoint


class FakeWorker:
    """Answers like a worker whose runtime takes 2 s for a prefill and 4 s for a decode."""

    def __init__(self, runtime: str, log: list[tuple[str, str, int, int]]) -> None:
        self.runtime, self._log = runtime, log

    def prefill(self, depth: int, n: int) -> float:
        self._log.append((self.runtime, "prefill", depth, n))
        return 2.0

    def decode(self, depth: int, n: int) -> float:
        self._log.append((self.runtime, "decode", depth, n))
        return 4.0


def test_a_round_measures_rates_at_the_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versus, "SETTLE_S", 0.0)
    log: list[tuple[str, str, int, int]] = []
    figures: dict[str, list[float]] = {}
    worker: Any = FakeWorker("edgeqwen", log)
    versus.measure(worker, figures, versus.parse(["-p", "100", "-n", "20", "-d", "7"]))
    assert figures == {"prefill_tps": [50.0], "decode_tps": [5.0]}
    assert log == [("edgeqwen", "prefill", 7, 100), ("edgeqwen", "decode", 7, 20)]


def test_medians_and_their_ratios() -> None:
    rounds = {
        "edgeqwen": {"decode_tps": [1.0, 90.0, 60.0], "load_s": [2.0]},
        "llama.cpp": {"decode_tps": [40.0, 30.0, 30.0], "load_s": [4.0]},
    }
    result = versus.summary(rounds)
    assert result["edgeqwen"]["decode_tps"] == 60.0
    assert result["ratio"] == {"decode_tps": 2.0, "load_s": 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "0"], "0 is not a positive number"),
        (["-d", "-1"], "--depth is -1; it counts tokens, from 0"),
        (["--model", "nowhere.gguf"], "--model nowhere.gguf is not a file"),
        (["--shape", "9B"], "invalid choice: '9B'"),
        (["--model", "a.gguf", "--shape", "0.5B"], "not allowed with argument"),
    ],
)
def test_senseless_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        versus.parse(arguments)
    assert message in capsys.readouterr().err


def test_an_error_in_a_worker_is_told() -> None:
    with (
        Worker("abacus") as worker,
        pytest.raises(RuntimeError, match=r"abacus: ValueError: .*edge"),
    ):
        worker.open(Path("model.gguf"), n_threads=1, n_context=8, n_prompt=1)


@pytest.mark.peers
def test_the_whole_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
    if "AMX_INT8" in versus.llama_cpp_features():
        pytest.skip("this build of llama.cpp crashes on CPUs with AMX: benchmarks/README.md")
    write_checkpoint(tmp_path / "hf", hidden_size=256, n_heads=4, n_kv_heads=2)
    model, report = tmp_path / "tiny.gguf", tmp_path / "figures.json"
    quantize(tmp_path / "hf", model, "q4_0")
    sizes = ["-t", "1", "-p", "32", "-n", "4", "-d", "8", "--rounds", "2"]
    versus.main(["--model", str(model), *sizes, "--json", str(report)])
    found = json.loads(report.read_text("utf-8"))
    for name in NAMES:
        assert set(found[name]) == set(versus.TITLES)
        assert all(value > 0 for value in found[name].values())
        assert {len(values) for values in found["rounds"][name].values()} == {2}
    ratio = found["edgeqwen"]["decode_tps"] / found["llama.cpp"]["decode_tps"]
    assert found["ratio"]["decode_tps"] == pytest.approx(ratio)
    assert found["machine"]["cpu"]
    assert str(tmp_path) not in report.read_text("utf-8")
    assert "decode, tokens/s" in capsys.readouterr().out
