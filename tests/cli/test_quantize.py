"""``edgeqwen quantize``: what it prints, and what is left when it is stopped."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
        (["-t", "q5_k"], "'q5_k' is no type to quantize to; choose one of f32, f16, "),
        (["-t", "\x1b[31m"], "is no type to quantize to"),
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
