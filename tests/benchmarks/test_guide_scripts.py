"""guide_tasks and guide_formats: their command lines, and a whole run on a tiny model."""

import json
from pathlib import Path

import pytest

from benchmarks import guide_formats, guide_tasks, machine
from benchmarks.format_order import neighbours
from benchmarks.task_scores import Score
from edgeqwen.quant import TYPES
from tests.hf_checkpoints import write_checkpoint
from tools.guide_model.corpus import mixture


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny random model in the place of the built-in one's checkpoint."""
    folder = write_checkpoint(tmp_path / "hf", hidden_size=256, intermediate_size=64)
    monkeypatch.setattr(guide_tasks, "CHECKPOINT", folder)
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 22)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "0"], "0 is not a positive number"),
        (["nowhere.gguf"], "nowhere.gguf is not a file"),
        (["--wrong", "-1"], "--wrong is -1; it counts answers, from 0"),
        ([], "holds no checkpoint (no config.json): make it with python -m tools.guide_model"),
    ],
)
def test_senseless_arguments_of_tasks(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(guide_tasks, "CHECKPOINT", tmp_path / "nothing")
    with pytest.raises(SystemExit):
        guide_tasks.parse(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "2"], "--tokens is 2; expected 3 or more"),
        (["--from-json", "--json", "none.json"], "none.json is not a file; measure first"),
        ([], "holds no checkpoint"),
    ],
)
def test_senseless_arguments_of_formats(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(guide_tasks, "CHECKPOINT", tmp_path / "nothing")
    with pytest.raises(SystemExit):
        guide_formats.parse(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ""),
        (["-n", "200", "--rounds", "7", "--json", "a.json"], ""),
        (
            ["-n", "40", "-t", "3", "-p", "8", "-g", "2", "--rounds", "5", "--tokens", "40"],
            " -n 40 -t 3 -p 8 -g 2 --rounds 5 --tokens 40",
        ),
    ],
)
def test_the_command_names_what_differs_from_the_defaults(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guide_tasks, "check_checkpoint", lambda parser: None)
    monkeypatch.setattr(machine, "n_usable_cpus", lambda: 2)
    options = guide_formats.parse(arguments)
    assert guide_formats.command(options) == f"python -m benchmarks.guide_formats{expected}"


def test_a_task_stands_beside_its_goal() -> None:
    score = Score("sort", "Sort a list", "1" * 8 + "00")
    assert guide_tasks.row(score, 0.9).endswith("  goal 90 %, below")
    assert "goal" not in guide_tasks.row(score, None)


def test_tasks_of_the_checkpoint(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "tasks.json"
    scored = (mixture.task("sums"), mixture.task("calls"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guide_tasks, "TASKS", scored)
        guide_tasks.main(["-n", "2", "-t", "1", "--wrong", "1", "--json", str(figures)])
    found = json.loads(figures.read_text("utf-8"))
    assert [(task["name"], task["n"]) for task in found["tasks"]] == [("sums", 2), ("calls", 2)]
    assert found["model"] == {"file": "guide-f16.gguf"}
    assert str(tmp_path) not in figures.read_text("utf-8")
    shown = capsys.readouterr().out
    assert "Sums of two and three digits" in shown
    # Both tasks and both of their groups, none of which a random model gets right.
    assert shown.count("goal 95 %, below") == 2
    assert shown.count("goal 90 %, below") == 2
    assert "  answered  " in shown


def test_all_formats_of_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the plot (the plots extra)")
    figures, docs = tmp_path / "formats.json", tmp_path / "docs"
    sizes = ["-n", "1", "-t", "1", "-p", "8", "-g", "2", "--rounds", "1", "--tokens", "40"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guide_formats, "TASKS", (mixture.task("sums"),))
        patch.setattr(guide_formats, "write_page", lambda report, folder: None)
        guide_formats.main([*sizes, "--json", str(figures), "--docs", str(docs)])
    found = json.loads(figures.read_text("utf-8"))
    by_type = {f["type"]: f for f in found["formats"]}
    assert tuple(by_type) == TYPES
    assert str(tmp_path) not in figures.read_text("utf-8")
    assert by_type["f16"]["kl"] == 0
    assert by_type["f32"]["kl"] < 1e-6 < by_type["q8_0"]["kl"] < by_type["q4_0"]["kl"]
    assert by_type["f32"]["bytes"] > by_type["q8_0"]["bytes"] > by_type["q4_0"]["bytes"]
    assert found["n_tokens"] == by_type["q4_0"]["n_positions"] + 1 == 40
    assert found["tasks"] == [{"name": "sums", "title": "Sums of two and three digits"}]
    assert found["command"].startswith("python -m benchmarks.guide_formats -n 1 ")
    pairs = {(pair["larger"], pair["smaller"]): pair for pair in found["neighbours"]}
    assert list(pairs) == neighbours(found["formats"])
    larger, smaller = list(pairs)[-1]
    change = by_type[larger]["nll_change"] - by_type[smaller]["nll_change"]
    assert pairs[larger, smaller]["nll_difference"] == pytest.approx(change, abs=1e-12)
    for f in found["formats"]:
        assert len(f["prefill_tps_rounds"]) == len(f["decode_tps_rounds"]) == 1
        assert f["perplexity"] > 1
        assert set(f["answers"]) == {"sums"}
        assert f["answers"]["sums"] in ("0", "1")
