"""``edgeqwen inspect``: what it tells, and that no file can write to the terminal with it."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.cli.running import json_of, run
from tests.gguf_samples import write_tiny_gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, types={"token_embd": "Q8_0", "blk.0.attn_q": "Q4_0"})
    return path


def test_json(model: Path) -> None:
    fields = json_of(run("inspect", model, "--json"))
    assert fields["config"]["n_layers"] == 2
    assert fields["config"]["rope_scaling"] is None
    # K and V of 2 layers, as float16.
    n_kv = fields["config"]["n_kv_heads"] * fields["config"]["head_dim"]
    assert fields["cache_bytes_per_token"] == 2 * 2 * n_kv * 2
    assert fields["version"] == 3
    assert fields["file_bytes"] == model.stat().st_size
    assert fields["metadata"]["general.architecture"] == "qwen2"
    assert fields["metadata"]["tokenizer.ggml.tokens"] == {"n_items": 320}
    tensors = {tensor["name"]: tensor for tensor in fields["tensors"]}
    assert tensors["token_embd.weight"]["shape"] == [320, 64]
    assert tensors["token_embd.weight"]["n_bytes"] == 320 * 64 // 32 * 34
    assert tensors["blk.0.attn_q.weight"]["type"] == "Q4_0"
    types = {entry["type"]: entry for entry in fields["types"]}
    assert types["Q8_0"] == {
        "type": "Q8_0",
        "n_tensors": 1,
        "n_weights": 320 * 64,
        "n_bytes": 320 * 64 // 32 * 34,
        "bits_in_memory": None,
    }
    assert fields["n_weights"] == sum(entry["n_weights"] for entry in fields["types"])
    assert fields["tensor_bytes"] == sum(tensor["n_bytes"] for tensor in tensors.values())
    assert fields["bits_per_weight"] == 8 * fields["tensor_bytes"] / fields["n_weights"]


def test_text(model: Path) -> None:
    done = run("inspect", model)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{model}: GGUF version 3, ")
    assert " bits per weight" in lines[1]
    assert "  n_layers             2" in lines
    (memory,) = (line for line in lines if line.startswith("A context of "))
    assert re.fullmatch(
        r"A context of \d+ tokens takes up to [\d.]+ [KM]iB of memory when it runs, "
        r"\d+ B for each token\.",
        memory,
    )
    assert "  tokenizer.ggml.tokens                   [320 items]" in lines
    assert any(
        line.split() == ["Q4_0", "1", "tensors", "4,096", "weights", "2.2", "KiB"] for line in lines
    )
    assert any(
        line.split() == ["blk.0.attn_q.weight", "Q4_0", "64", "x", "64", "2.2", "KiB"]
        for line in lines
    )
    assert any(line.endswith("characters)") for line in lines if "chat_template" in line)


def test_a_file_of_another_family_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "llama.gguf"
    write_tiny_gguf(path, metadata={"general.architecture": "llama"})
    done = run("inspect", path)
    assert done.returncode == 0
    assert "none that edgeqwen can run: " in done.stdout
    assert "'llama'" in done.stdout
    assert "token_embd.weight" in done.stdout
    fields = json_of(run("inspect", path, "--json"))
    assert fields["config"] is None
    assert fields["cache_bytes_per_token"] is None
    assert "'llama'" in fields["problem"]


def test_nothing_in_a_file_reaches_the_terminal_raw(tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[31m.gguf"
    evil = "\x1b]0;owned\x07\x9b31m\u202e\rx\n"
    write_tiny_gguf(
        path,
        metadata={
            "general.name": evil,
            "general.author": evil,
            f"evil.{evil}key": [evil, evil],
            "tokenizer.chat_template": evil * 20,
        },
        tensors={
            "rope_freqs.weight": np.zeros(8, np.float32),
            f"evil{evil}": np.zeros(8, np.float32),
        },
    )
    for arguments in (("inspect", path), ("inspect", path, "--json")):
        done = run(*arguments)
        for text in (done.stdout, done.stderr):
            assert not set("\x1b\x07\x9b\u202e\r") & set(text)


@pytest.mark.parametrize("content", [b"", b"GG", b"GGUF", b"not a model at all" * 10])
def test_what_is_no_gguf_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    done = run("inspect", path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"edgeqwen: {path}: ")
    assert done.stderr.count("\n") == 1


def test_a_folder_is_one_line(tmp_path: Path) -> None:
    done = run("inspect", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"edgeqwen: {tmp_path}: is a folder, expected a GGUF file\n"


def test_types_that_take_more_memory_than_the_file(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "x.gguf", types="IQ2_S", hidden_size=256, intermediate_size=256)
    assert "4.56 bits per weight when it runs" in run("inspect", str(tmp_path / "x.gguf")).stdout
    fields = json_of(run("inspect", tmp_path / "x.gguf", "--json"))
    assert {t["type"]: t["bits_in_memory"] for t in fields["types"]} == {
        "IQ2_S": 4.5625,
        "F32": None,
    }
