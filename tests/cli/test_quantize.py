"""``edgeqwen quantize``: what it prints, and what is left when it is stopped."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.quant import TYPES
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry
from tests.cli.running import REAL, ROOT, environment, json_of, run
from tests.gguf_samples import write_tiny_gguf
from tests.hf_checkpoints import write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def test_writes_a_file_and_says_so(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    done = run("quantize", checkpoint, "-t", "q8_0", "-o", output)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{output}: 90,688 weights in ")
    assert " KiB, 8.65 bits per weight, " in done.stdout
    types = json_of(run("inspect", output, "--json"))["types"]
    assert {entry["type"] for entry in types} == {"Q8_0", "F32"}


def test_prints_what_is_to_be_noted(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "in.gguf", types="Q8_0")
    done = run("quantize", tmp_path / "in.gguf", "-o", tmp_path / "out.gguf")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the source is quantized already (Q8_0): ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-t", "q5_x"], "'q5_x' is no type to quantize to; choose one of f32, f16, "),
        (["-t", "\x1b[31m"], "is no type to quantize to"),
        (["--tensor-type", "attn_v"], "--tensor-type 'attn_v': expected a part of a name, =, and"),
        (["--tensor-type", "=q8_0"], "--tensor-type '=q8_0': expected a part of a name"),
        (["--tensor-type", "attn_v="], "--tensor-type 'attn_v=': expected a part of a name"),
        (["--tensor-type", "attn_v=int8"], "'int8' is no type that a tensor can be converted to"),
        (["--tensor-type", "(=q8_0"], "tensor type '(': is no regular expression (missing )"),
        (["--tensor-type", "bias=q8_0"], "'bias': found in the name of no matrix of this model"),
        (
            ["--tensor-type", "ffn=q8_0", "--tensor-type", "ffn=q8_0"],
            "--tensor-type: 'ffn' is given twice; give it once",
        ),
    ],
)
def test_an_error_is_one_line(
    checkpoint: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = run("quantize", checkpoint, *options, "-o", tmp_path / "out.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_an_output_is_needed(checkpoint: Path) -> None:
    done = run("quantize", checkpoint)
    assert done.returncode == 2
    assert "--output" in done.stderr
    assert "Missing; only --dry-run needs none" in done.stderr


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_tokens_of_no_text(checkpoint: Path, tmp_path: Path, dry_run: list[str]) -> None:
    options = ["--calibrate-tokens", "32768", *dry_run, "-o", tmp_path / "out.gguf"]
    done = run("quantize", checkpoint, *options, COLUMNS="200")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no text to calibrate with; give one (--calibrate TEXT)." in done.stderr
    assert [*tmp_path.iterdir()] == [checkpoint]


def test_the_help_names_every_recipe() -> None:
    shown = " ".join(run("quantize", "--help", COLUMNS="200").stdout.split())
    assert f"{', '.join(TYPES[:-1])} or {TYPES[-1]}." in re.sub(" [│|] ", " ", shown)


def test_types_of_tensors(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    options = ["--tensor-type", "(?=attn)attn_q=f16", "--tensor-type", "attn=q5_1", "--pad-ffn"]
    done = run("quantize", checkpoint, "-t", "q8_0", "-o", output, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the feed-forward size is filled up with zeros, from 96 to 256\n")
    found = json_of(run("inspect", output, "--json"))
    types = {tensor["name"]: tensor["type"] for tensor in found["tensors"]}
    assert types["blk.0.attn_q.weight"] == "F16"
    assert types["blk.0.attn_k.weight"] == types["blk.1.attn_output.weight"] == "Q5_1"
    assert types["blk.0.ffn_down.weight"] == "Q8_0"
    assert found["config"]["intermediate_size"] == 256


def test_an_importance_matrix(checkpoint: Path, tmp_path: Path) -> None:
    path, output = tmp_path / "imatrix.gguf", tmp_path / "out.gguf"
    entry = Entry(np.arange(96, dtype=np.float32), 512)
    Imatrix({"blk.0.ffn_down.weight": entry}, 1, 512).write(path)
    note = (
        f"{path} says nothing of 13 of 15 matrices, the first is blk.0.attn_q.weight: their "
        "columns count alike\n"
    )
    done = run("quantize", checkpoint, "--imatrix", path, "-o", output)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{note}{output}: ")
    metadata = json_of(run("inspect", output, "--json"))["metadata"]
    assert metadata["quantize.imatrix.file"] == str(path)
    done = run("quantize", checkpoint, "--imatrix", path, "--dry-run")
    assert done.stdout.startswith(f"{note}Tensors ")
    done = run("quantize", checkpoint, "--imatrix", tmp_path / "no", "-o", output)
    assert (done.returncode, done.stderr) == (1, f"edgeqwen: {tmp_path / 'no'}: no such file\n")


PLAN = """\
14 matrices are not of the type meant for them: blk.0.attn_q.weight is Q5_0, because its 64 \
columns are not a multiple of 256, which Q4_K needs
Tensors (rows x columns)
  token_embd.weight           448 x 64  BF16 -> Q8_0  1 x 29.8 KiB
  blk.0-1.attn_norm.weight    64        BF16 -> F32   2 x 256 B
  blk.0-1.attn_q.weight       64 x 64   BF16 -> Q5_0  2 x 2.8 KiB
  blk.0-1.attn_q.bias         64        BF16 -> F32   2 x 256 B
  blk.0-1.attn_k.weight       32 x 64   BF16 -> Q5_0  2 x 1.4 KiB
  blk.0-1.attn_k.bias         32        BF16 -> F32   2 x 128 B
  blk.0-1.attn_v.weight       32 x 64   BF16 -> Q8_0  2 x 2.1 KiB
  blk.0-1.attn_v.bias         32        BF16 -> F32   2 x 128 B
  blk.0-1.attn_output.weight  64 x 64   BF16 -> Q5_0  2 x 2.8 KiB
  blk.0-1.ffn_norm.weight     64        BF16 -> F32   2 x 256 B
  blk.0-1.ffn_gate.weight     96 x 64   BF16 -> Q5_0  2 x 4.1 KiB
  blk.0-1.ffn_up.weight       96 x 64   BF16 -> Q5_0  2 x 4.1 KiB
  blk.0.ffn_down.weight       64 x 96   BF16 -> Q5_0  1 x 4.1 KiB
  blk.1.ffn_down.weight       64 x 96   BF16 -> Q8_0  1 x 6.4 KiB
  output_norm.weight          64        BF16 -> F32   1 x 256 B

Types
  Q8_0  4 tensors   38,912 weights  40.4 KiB
  Q5_0  11 tensors  51,200 weights  34.4 KiB
  F32   11 tensors  576 weights     2.2 KiB

"""


@pytest.mark.parametrize(
    "options", [["--dry-run"], ["--dry-run", "-o", "out.gguf"], ["-o", "out.gguf", "--dry-run"]]
)
def test_a_dry_run_tells_everything_and_writes_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    choice = ["-t", "q4_k", "--tensor-type", "attn_v=q6_k"]
    done = run("quantize", checkpoint, *choice, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert [*tmp_path.iterdir()] == [checkpoint]
    plan, last = done.stdout[: len(PLAN)], done.stdout[len(PLAN) :]
    assert plan == PLAN
    output = tmp_path / "out.gguf"
    written = run("quantize", checkpoint, *choice, "-o", output).stdout.splitlines()[-1]
    sizes = written.removeprefix(f"{output}: ").rpartition(", ")[0]
    assert last == f"{checkpoint} to q4_k_m: {sizes}; nothing was written\n"
    assert " bits per weight" in sizes


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_it_leaves_nothing(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    source = tmp_path / "in.gguf"
    write_tiny_gguf(source, hidden_size=1024, intermediate_size=4096, n_heads=16)
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [*REAL, "quantize", source, "-t", "f32", "-o", folder / "out.gguf"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    give_up = time.monotonic() + 60
    while not any(file.stat().st_size for file in folder.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")
    assert [*folder.iterdir()] == []
