"""The benchmark of the screened head: what counts as missed, its hidden states, and its page."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import machine, screened_head
from benchmarks.page_parts import DOCS
from benchmarks.screened_page import page
from benchmarks.screened_samples import HEADS, HIDDEN_STATES, SampleHead, pushed
from edgeqwen.ggml_types import GgmlType
from edgeqwen.model.wanted import Wanted
from tests.benchmarks.tables import rows
from tests.engines import write_model

LOWEST = np.finfo(np.float32).min
TYPES = pytest.mark.parametrize("type_", screened_head.SMALL, ids=lambda t: t.name)


def make(type_: GgmlType = GgmlType.Q8_0, kind: str = "normal", n_rows: int = 1200) -> SampleHead:
    return SampleHead.make(kind, type_, n_rows, 256, np.random.default_rng(0))


def test_what_counts_as_missed() -> None:
    full = np.array([5, 4, 3, 2, 4, -1], np.float32)
    penalised = np.array([1, 0, 0, 0, 0, 1], np.uint8)
    plain = Wanted(2, penalised)
    assert screened_head.missed(full, full, plain).tolist() == []
    found = full.copy()
    found[3] = LOWEST
    assert screened_head.missed(found, full, plain).tolist() == []
    # Two are equal to the last that is wanted; a wrong one is as bad as none.
    found[4], found[1] = LOWEST, 3.9
    assert screened_head.missed(found, full, plain).tolist() == [1, 4]
    # After the penalty the first is worth 2.5, and 2 if 0.5 are subtracted.
    found = full.copy()
    found[[0, 2]] = LOWEST
    assert screened_head.missed(found, full, Wanted(3, penalised, 2.0)).tolist() == [2]
    assert screened_head.missed(found, full, Wanted(4, penalised, 2.0)).tolist() == [0, 2]
    assert screened_head.missed(found, full, Wanted(4, penalised, 2.0, 0.6)).tolist() == [2]


@TYPES
@pytest.mark.parametrize("kind", HEADS)
def test_the_tapes_compute_the_product(type_: GgmlType, kind: str) -> None:
    head = make(type_, kind)
    weights = head.read(0, 1200)
    x = np.random.default_rng(1).standard_normal(256).astype(np.float32)
    expected = (weights.q * weights.by_column).reshape(1200, -1) @ x
    with closing(screened_head.Comparison(head)) as comparison:
        screened, full = comparison.run(x, Wanted(5, np.zeros(1200, np.uint8)))
    np.testing.assert_allclose(full, expected, atol=0.02 * np.abs(expected).max())
    known = screened != LOWEST
    assert np.count_nonzero(known) > 5
    np.testing.assert_array_equal(screened[known], full[known])


@TYPES
def test_pushed_states_are_off_by_so_many_deviations(type_: GgmlType) -> None:
    head = make(type_)
    step = {GgmlType.Q8_0: 16, GgmlType.Q6_K: 4}[type_]
    off = []
    rng = np.random.default_rng(2)
    for _ in range(30):
        x, row = pushed(head, rng, 6.0)
        weights = head.read(row)
        error = (weights.errors * weights.by_column).ravel() @ x
        variance = (step**2 - 1) / 12 * (weights.by_column.ravel() ** 2 * x**2).sum()
        off.append(error / np.sqrt(variance))
    # The push makes the state itself larger, and its expected error with it.
    assert 4 < np.mean(off) < 7


@pytest.mark.parametrize("kind", HIDDEN_STATES)
def test_hidden_states(kind: str) -> None:
    head = make()
    x = HIDDEN_STATES[kind](head, np.random.default_rng(3))
    assert (x.shape, x.dtype) == ((256,), np.float32)
    assert np.isfinite(x).all()
    assert x.any()


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 22)
    monkeypatch.setattr(screened_head, "SMALL", {GgmlType.Q8_0: (1200, 256)})
    monkeypatch.setattr(screened_head, "TRUE", {GgmlType.Q8_0: (2000, 256)})
    model = write_model(tmp_path / "tiny.gguf")
    figures = tmp_path / "screened.json"
    small = ["--positions", "48", "--true", "24", "--pushed", "2", "--steps", "3"]
    screened_head.main(
        [*small, "--model", str(model), "--json", str(figures), "--docs", str(tmp_path)]
    )
    found = json.loads(figures.read_text("utf-8"))
    sizes = [(c["rows"], c["positions"]) for c in found["comparisons"]]
    assert sizes == [(1200, 2)] * 24 + [(2000, 1)] * 24
    assert [len(found["steps"][0]["seconds"][name]) for name in ("full", "screened")] == [3, 3]
    assert found["steps"][0]["mean_computed"] == 1.0  # too few rows to be screened
    text = (tmp_path / "screened-head.md").read_text("utf-8")
    assert "**Of 72 positions, 0 missed a token, and 0 got" in text
    assert "24 of them are over heads of true size" in text
    assert text == page(found)


def test_the_page() -> None:
    text = page(report())
    assert "**Of 1,000,200 positions, 1 missed a token, and 2 got a logit" in text
    assert "200 of them are over heads of true size" in text
    assert rows(text, "normal") == [["normal", "1,000,000", "1", "7.0 %", "12 %"]]
    assert rows(text, "heavy-tailed, Q6_K, 151,936 × 1,536") == [
        ["heavy-tailed, Q6_K, 151,936 × 1,536", "200", "0", "2.5 %", "50 %"]
    ]
    assert rows(text, "8 standard deviations") == [["8 standard deviations", "100", "40", "3"]]
    assert "x.gguf, 2 threads, random tokens: a step takes 22.0 ms with the full head" in text
    assert "20.0 ms with the screen, 1.10 times as fast; 2.5 % of the logits" in text
    assert "busy" not in text


def test_from_json_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        screened_head.parse(["--from-json", "--json", "none.json"])
    assert "none.json is not a file; measure first" in capsys.readouterr().err


def test_the_committed_page_is_what_its_json_gives() -> None:
    found = json.loads(screened_head.FIGURES.read_text("utf-8"))
    assert (DOCS / "screened-head.md").read_text("utf-8") == page(found)


def test_the_committed_figures_show_a_million_positions_without_a_miss() -> None:
    found = json.loads(screened_head.FIGURES.read_text("utf-8"))["comparisons"]
    assert sum(c["positions"] for c in found) >= 1_000_000
    assert sum(c["missed"] + c["wrong"] for c in found) == 0
    assert {c["hidden_states"] for c in found} == set(HIDDEN_STATES)


def report() -> dict[str, Any]:
    """Returns a small screened_head.json, as if measured."""
    shared = {"all_computed": 0, "hidden_states": "normal"}
    small = {"type": "Q8_0", "rows": 16384, "columns": 256, "wrong": 1, **shared}
    return {
        "command": "python -m benchmarks.screened_head",
        "machine": {
            "cpu": "A CPU",
            "n_usable_cpus": 2,
            "isa": "avx2",
            "load_average": 0.1,
            "commit": "0123456789ab",
            "versions": {"python": "3.11.9"},
        },
        "comparisons": [
            {
                **small,
                "head": "normal",
                "positions": 750_000,
                "missed": 1,
                "mean_computed": 0.06,
                "largest_computed": 0.12,
            },
            {
                **small,
                "head": "heavy-tailed",
                "positions": 250_000,
                "missed": 0,
                "mean_computed": 0.1,
                "largest_computed": 0.11,
            },
            {
                **shared,
                "type": "Q6_K",
                "head": "heavy-tailed",
                "rows": 151936,
                "columns": 1536,
                "wrong": 0,
                "positions": 200,
                "missed": 0,
                "mean_computed": 0.025,
                "largest_computed": 0.5,
            },
        ],
        "pushes": [{"deviations": 8, "positions": 100, "among": 40, "missed": 3}],
        "steps": [
            {
                "model": "x.gguf",
                "n_threads": 2,
                "seconds": {"full": [0.022, 0.030, 0.021], "screened": [0.02, 0.019, 0.025]},
                "mean_computed": 0.025,
            }
        ],
    }
