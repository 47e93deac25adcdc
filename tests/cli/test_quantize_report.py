"""``edgeqwen quantize --report``: two files beside the model, and what is printed of them."""

import json
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.gguf_samples import write_tiny_gguf
from tests.hf_checkpoints import write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def test_a_report_is_written_and_the_worst_are_named(checkpoint: Path, tmp_path: Path) -> None:
    page, output = tmp_path / "r.html", tmp_path / "out.gguf"
    done = run("quantize", checkpoint, "-o", output, "--report", page)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert (content["output"], content["n_bytes"]) == (str(output), output.stat().st_size)
    tensors = sorted(content["tensors"], key=lambda t: -t["errors"]["relative_rmse"])[:3]
    named = [
        f"{t['name']} {100 * t['errors']['relative_rmse']:.3g}% ({t['type']})" for t in tensors
    ]
    summary, largest, files = done.stdout.splitlines()
    assert summary.startswith(f"{output}: 90,688 weights in ")
    assert largest == f"largest errors, RMSE / RMS: {', '.join(named)}"
    assert files == f"{tmp_path / 'r.json'} and {page}"
    assert all(t["name"] in page.read_text("utf-8") for t in content["tensors"])


def test_an_exact_conversion(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "in.gguf", types="Q8_0")
    options = ["-t", "q8_0", "-o", tmp_path / "out.gguf", "--report", tmp_path / "r.json"]
    done = run("quantize", tmp_path / "in.gguf", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "largest errors, RMSE / RMS: none, every tensor is exact\n" in done.stdout


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("r.txt", [], "r.txt: ends in '.txt', expected .html or .json"),
        ("r.html", ["--dry-run"], "--report tells of what was written; leave --dry-run out"),
        ("checkpoint/config.json", [], "config.json: is a file of the source"),
    ],
)
def test_no_work_is_done_for_a_report_that_can_not_be(
    checkpoint: Path, tmp_path: Path, name: str, options: list[str], message: str
) -> None:
    before = (checkpoint / "config.json").read_bytes()
    output = tmp_path / "out.gguf"
    done = run("quantize", checkpoint, "-o", output, "--report", tmp_path / name, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert [*tmp_path.iterdir()] == [checkpoint]
    assert (checkpoint / "config.json").read_bytes() == before
