"""``edgeqwen imatrix``: what it refuses, and that nothing that it reads is written over."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen import api
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry
from tests.cli import fake_program
from tests.cli.running import run
from tests.engines import F32_CACHE, write_model

Q = "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imatrix") / "model.gguf"
    return write_model(path, n_layers=1, tied=False, max_context=600, **F32_CACHE)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the sky is blue, and the world is wide. " * 8)
    return path


def some(columns: int = 96) -> Imatrix:
    return Imatrix({Q: Entry(np.arange(columns, dtype=np.float32), 512)}, 1, 512)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["-c", "20"], "--context"),
        (["--chunks", "1"], "--chunks"),
        (["--process-output"], "--process-output"),
        (["--special"], "--special"),
    ],
)
def test_options_of_a_text_that_there_is_not(tmp_path: Path, options: list[str], name: str) -> None:
    one, output = tmp_path / "one.gguf", tmp_path / "out.gguf"
    some().write(one)
    done = run("imatrix", "--in", one, "-o", output, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"edgeqwen: {name}: says how a text is read, and there is none; give one (-f TEXT), or "
        f"leave {name} out\n"
    )
    assert not output.exists()


def test_nothing_to_do() -> None:
    done = run("imatrix", "model.gguf")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give a text to read (-f TEXT), or files to combine (--in)" in " ".join(
        done.stderr.replace("│", " ").split()
    )


def not_written_over(output: Path, what: str, *arguments: str | Path) -> None:
    content = output.read_bytes()
    done = run("imatrix", *arguments, "-o", output)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"edgeqwen: {output}: is {what}; choose another output\n"
    assert output.read_bytes() == content


def test_it_does_not_write_over_what_it_reads(path: Path, text: Path, tmp_path: Path) -> None:
    before, link = tmp_path / "before.gguf", tmp_path / "link.gguf"
    some().write(before)
    link.symlink_to(before)
    not_written_over(path, "a file of the model", path, "-f", text)
    not_written_over(text, "the text", path, "-f", text)
    for output in (before, link):
        what = "one of the files to add (--in)"
        not_written_over(output, what, path, "-f", text, "--in", before)
        not_written_over(output, what, "--in", path, "--in", before)


def test_it_does_not_write_over_another_file_of_the_model(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(folder / "tiny.gguf", n_layers=1, shard_tensors=6, **F32_CACHE)
    shards = sorted(folder.iterdir())
    assert len(shards) > 2
    for output in shards:
        not_written_over(output, "a file of the model", shards[1], "-f", text)


def test_what_is_wrong_is_noticed_before_a_model_is_loaded(
    path: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(fake_program, "load", fail)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 noir")
    empty, closed = tmp_path / "empty", tmp_path / "closed"
    empty.touch()
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != closed)
    least = "is empty, expected a text of at least {} tokens, a window; give more text\n"
    for options, message in (
        (("-f", empty), f"{empty}: {least.format(512)}"),
        (("-f", empty, "-c", "20"), f"{empty}: {least.format(20)}"),
        (("-f", "-"), f"standard input: {least.format(512)}"),
        (("-f", text, "--in", empty), f"{empty}: is empty, expected an importance matrix; edgeq"),
        (
            ("-f", text, "-o", closed / "out.gguf"),
            f"{closed / 'out.gguf'}: the folder {closed} can't be written to; change its perm",
        ),
        (("-f", tmp_path / "no.txt"), f"{tmp_path / 'no.txt'}: No such file or directory"),
        (("-f", tmp_path / "latin.txt"), f"{tmp_path / 'latin.txt'}: byte 3 is no UTF-8"),
        (("-f", text, "-o", tmp_path), f"{tmp_path}: is a folder; give the name of a file in it"),
        (("-f", text, "--in", text), f"{text}: is plain text, expected an importance matrix; "),
    ):
        done = run("imatrix", path, *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"edgeqwen: {message}")
        assert done.stderr.count("\n") == 1


def test_an_error_leaves_no_file(
    path: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_program, "load", api.load)
    output, other = tmp_path / "out.gguf", tmp_path / "other.gguf"
    some(columns=64).write(other)
    for options, message in (
        (("-c", "601"), "the window has 601 tokens: expected 1 to 600, the model's context"),
        ((), "the text is too short: it has "),
        (
            ("--in", other),
            f"{other}: {Q} has 64 columns, but 96 in {path}: it is another model's; collect one "
            "from this model",
        ),
    ):
        done = run("imatrix", path, "-f", text, "-o", output, *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"edgeqwen: {message}")
        assert not output.exists()


@pytest.mark.parametrize("option", [("--chunks", "0"), ("-c", "0"), ("-t", "0")])
def test_senseless_options(option: tuple[str, str]) -> None:
    done = run("imatrix", "x.gguf", "-f", "-", *option)
    assert (done.returncode, done.stdout) == (2, "")
