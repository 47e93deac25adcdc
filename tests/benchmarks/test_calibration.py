"""The benchmark of calibration: its text, its ratios, a whole run on a tiny model, and its page."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import calibration, guide_tasks, machine
from benchmarks.calibration_page import page
from benchmarks.calibration_text import training_text
from edgeqwen.guide import held_out_text
from tests.benchmarks.tables import rows
from tests.hf_checkpoints import write_checkpoint


class Characters:
    """Stands for a tokenizer: every character is a token."""

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        assert allow_special
        return [ord(c) for c in text]


def test_the_text_is_long_enough_and_nothing_of_it_is_held_out() -> None:
    characters: Any = Characters()
    text, tokens = training_text(characters, 20_000)
    assert 20_000 <= len(tokens) == len(text) < 25_000
    assert training_text(characters, 20_000) == (text, tokens)
    held_out = set(held_out_text().split("<|endoftext|>"))
    documents = [document for document in text.split("<|endoftext|>") if document]
    assert len(documents) > 10
    assert not held_out & set(documents)


def test_the_ratio_and_its_error() -> None:
    rng = np.random.default_rng(0)
    b = rng.exponential(1.0, 4000)
    # Half of it, always: what differs from token to token cancels.
    assert calibration.ratio_of_means(b / 2, b) == pytest.approx((0.5, 0.0), abs=1e-12)
    trials = []
    for _ in range(400):
        b = rng.exponential(1.0, 500)
        a = b * rng.uniform(0.0, 1.0, 500)
        trials.append(calibration.ratio_of_means(a, b))
    ratios = [trial.mean for trial in trials]
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.01)
    assert np.mean([trial.se for trial in trials if trial.se]) == pytest.approx(
        np.std(ratios), rel=0.15
    )


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="draws the plot (the plots extra)")
    checkpoint = write_checkpoint(tmp_path / "hf", n_layers=1, hidden_size=128)
    monkeypatch.setattr(guide_tasks, "CHECKPOINT", checkpoint)
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 22)
    figures = tmp_path / "calibration.json"
    small = ["-t", "1", "--text-tokens", "600", "--tokens", "60", "--recipes", "q4_0"]
    calibration.main([*small, "--json", str(figures), "--docs", str(tmp_path)])
    found = json.loads(figures.read_text("utf-8"))
    assert str(tmp_path) not in figures.read_text("utf-8")
    (recipe,) = found["recipes"]
    assert list(recipe["methods"]) == ["plain", "imatrix", "calibrate"]
    kl = {method: values["kl"] for method, values in recipe["methods"].items()}
    assert len(set(kl.values())) == 3
    assert recipe["methods"]["plain"]["kl_ratio"] == 1.0
    assert recipe["methods"]["imatrix"]["kl_ratio"] == pytest.approx(kl["imatrix"] / kl["plain"])
    assert found["n_tokens"] == 60 == recipe["methods"]["plain"]["n_positions"] + 1
    assert found["n_text_tokens"] >= 600
    assert len(rows((tmp_path / "calibration.md").read_text("utf-8"), "Q4_0")) == 3
    labels = "".join(ElementTree.parse(tmp_path / "calibration.svg").getroot().itertext())
    assert "--calibrate" in labels
    assert "Q4_0 (" in labels


def test_the_page() -> None:
    text = page(report())
    assert rows(text, "Q2_K") == [
        ["Q2_K", "3.10", "0.04 ± 0.002", "0.03 ± 0.002", "0.750 ± 0.010", "0.01 ± 0.0005",
         "0.250 ± 0.020"],
        ["Q2_K", "1.6000", "95.00 %", "1.6000", "96.00 %", "1.6000", "98.00 %"],
        ["Q2_K", "0.10", "0.20", "30.00"],
    ]  # fmt: skip
    assert "the same 40100 tokens" in text
    assert "on the 50000 tokens of the held-out text" in text
    assert "matrix itself took 4.2 s" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "2"], "--tokens is 2; expected 3 or more"),
        (["--text-tokens", "100"], "--text-tokens is 100; expected 512 or more, a window"),
        (["--recipes", "f16"], "invalid choice: 'f16'"),
        (["--from-json", "--json", "none.json"], "none.json is not a file; measure first"),
        ([], "holds no checkpoint"),
    ],
)
def test_senseless_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(guide_tasks, "CHECKPOINT", tmp_path / "nothing")
    with pytest.raises(SystemExit):
        calibration.parse(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


def report() -> dict[str, Any]:
    """Returns a small calibration.json, as if measured."""

    def method(kl: float, ratio: float, ratio_se: float, top: float, s: float) -> dict[str, float]:
        return {
            "kl": kl,
            "kl_se": kl / 20,
            "kl_ratio": ratio,
            "kl_ratio_se": ratio_se,
            "top1_agreement": top,
            "perplexity": 1.6,
            "seconds": s,
            "bits_per_weight": 3.1,
        }

    return {
        "command": "python -m benchmarks.calibration",
        "machine": {
            "cpu": "A CPU",
            "n_threads": 2,
            "n_usable_cpus": 2,
            "isa": "avx2",
            "load_average": 0.1,
            "commit": "0123456789ab",
            "versions": {"python": "3.11.9"},
        },
        "n_tokens": 50_000,
        "n_text_tokens": 40_100,
        "imatrix_s": 4.2,
        "recipes": [
            {
                "type": "q2_k",
                "methods": {
                    "plain": method(0.04, 1.0, 0.0, 0.95, 0.1),
                    "imatrix": method(0.03, 0.75, 0.01, 0.96, 0.2),
                    "calibrate": method(0.01, 0.25, 0.02, 0.98, 30.0),
                },
            }
        ],
    }
