"""``edgeqwen quantize``: what is read is looked at first, and never written over."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeqwen.quant
from edgeqwen.guide import held_out_text
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry
from tests.cli.running import json_of, run
from tests.gguf_samples import write_tiny_gguf
from tests.hf_checkpoints import write_checkpoint

FEW = (
    "{} tokens are few to calibrate on: less is gained, and the file may even become worse than "
    "without; use 4096 or more, better 32768"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", n_layers=1)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.html"
    path.write_text(held_out_text()[:30_000], "utf-8")
    return path


@pytest.fixture
def imatrix(tmp_path: Path) -> Path:
    path = tmp_path / "imatrix.json"
    Imatrix({"blk.0.ffn_down.weight": Entry(np.ones(96, np.float32), 1)}).write(path)
    return path


@pytest.fixture
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(edgeqwen.quant, "quantize", fail)


def refused(*arguments: str | Path, input: str = "") -> str:
    """Returns the only line that the command prints."""
    done = run("quantize", *arguments, input=input)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("edgeqwen: ").removesuffix("\n")


def test_outputs_that_are_read(
    source: Path, text: Path, imatrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, link = tmp_path / "out.gguf", tmp_path / "link"
    link.symlink_to(text)
    before = {path: path.read_bytes() for path in (text, imatrix, source / "config.json")}
    the_text, the_imatrix = "is the text to calibrate with", "is the importance matrix"
    for arguments, file, what in (
        (["--imatrix", imatrix, "-o", imatrix], imatrix, the_imatrix),
        (["--calibrate", text, "-o", text], text, the_text),
        (["--calibrate", text, "-o", link], link, the_text),
        (["--calibrate", link, "-o", text], text, the_text),
        (["--calibrate", text, "--report", text, "-o", output], text, the_text),
        (
            ["--calibrate", text, "--report", text.with_suffix(".json"), "-o", output],
            text,
            the_text,
        ),
        (["--imatrix", imatrix, "--report", imatrix, "-o", output], imatrix, the_imatrix),
        (
            ["--imatrix", imatrix, "--report", imatrix.with_suffix(".html"), "-o", output],
            imatrix,
            the_imatrix,
        ),
        (["--imatrix", imatrix, "--dry-run", "-o", imatrix], imatrix, the_imatrix),
        (["--calibrate", text, "--dry-run", "-o", text], text, the_text),
        (
            ["--dry-run", "-o", source / "config.json"],
            source / "config.json",
            "is a file of the source",
        ),
    ):
        assert refused(source, *arguments) == f"{file}: {what}; choose another output"
    assert {path: path.read_bytes() for path in before} == before
    assert not output.exists()


def test_a_dry_run_over_another_file_of_the_source(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", shard_tensors=9)
    shards = sorted(tmp_path.iterdir())
    message = refused(shards[1], "--dry-run", "-o", shards[0])
    assert message == f"{shards[0]}: is a file of the source; choose another output"


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_inputs_that_are_none(source: Path, tmp_path: Path, dry_run: list[str]) -> None:
    gone, empty, latin = (tmp_path / name for name in ("gone.txt", "empty.txt", "latin.txt"))
    empty.touch()
    latin.write_bytes(b"caf\xe9 noir")
    options = ["-o", tmp_path / "out.gguf", *dry_run]
    assert refused(source, "--calibrate", gone, *options) == f"{gone}: No such file or directory"
    assert refused(source, "--calibrate", latin, *options).startswith(
        f"{latin}: byte 3 is no UTF-8 (invalid continuation byte), expected a text in UTF-8"
    )
    for path in (empty, "-"):
        assert refused(source, "--calibrate", path, *options) == (
            "the text to calibrate with has 0 tokens, expected at least 64, and better 32768; give "
            "a longer one"
        )


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_importance_matrices_that_are_none(
    source: Path, tmp_path: Path, dry_run: list[str]
) -> None:
    gone, empty = tmp_path / "gone.gguf", tmp_path / "empty.txt"
    empty.touch()
    options = ["-o", tmp_path / "out.gguf", *dry_run]
    assert refused(source, "--imatrix", gone, *options) == f"{gone}: no such file"
    assert refused(source, "--imatrix", empty, *options) == (
        f"{empty}: is empty, expected an importance matrix; edgeqwen imatrix makes one from a "
        "model and a text"
    )


@pytest.mark.usefixtures("_no_work")
def test_a_report_into_a_folder_without_permission(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, output = tmp_path / "closed", tmp_path / "out.gguf"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != closed)
    assert refused(source, "-o", output, "--report", closed / "r.html") == (
        f"{closed / 'r.json'}: the folder {closed} can't be written to; change its permissions, or "
        "choose another"
    )


@pytest.mark.parametrize("given", ["file", "standard input"])
def test_few_tokens_are_warned_of_before_the_work(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    output, options = tmp_path / "out.gguf", ["--calibrate-tokens", "128"]
    name: str | Path = text if given == "file" else "-"
    input = text.read_text("utf-8")
    done = run("quantize", *options, source, "--calibrate", name, "-o", output, input=input)
    assert (done.returncode, done.stderr) == (0, f"edgeqwen: warning: {FEW.format(128)}\n")
    note, summary = done.stdout.splitlines()
    assert note == "calibrated on 128 tokens in 1 window"
    assert summary.startswith(f"{output}: ")
    metadata = json_of(run("inspect", output, "--json"))["metadata"]
    assert metadata["quantize.calibration.tokens"] == 128
    dry = run("quantize", source, "--calibrate", name, "--dry-run", *options, input=input)
    assert (dry.returncode, dry.stderr) == (0, done.stderr)
    monkeypatch.setattr(edgeqwen.quant, "quantize", None)
    stopped = run("quantize", source, "--calibrate", name, "-o", output, *options, input=input)
    assert stopped.stderr.startswith(done.stderr)


def test_a_text_that_repeats_itself(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The sky is blue, and the world is wide. " * 1000)
    done = run("quantize", source, "--calibrate", text, "--dry-run")
    assert done.returncode == 0
    assert done.stderr.startswith(
        "edgeqwen: warning: the text to calibrate with repeats itself, only 0."
    )
    assert done.stderr.count("\n") == 1


def test_enough_text_is_no_warning(source: Path, text: Path) -> None:
    done = run("quantize", source, "--calibrate", text, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
