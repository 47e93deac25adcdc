"""The tensors of a GGUF file against the configuration in its metadata."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.errors import EdgeqwenError, FileFormatError, UnsupportedError
from edgeqwen.gguf_file import GgufFile
from tests.gguf_samples import write_tiny_gguf


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_config(path: Path) -> None:
    write_tiny_gguf(path, tied=False, head_dim=32, n_kv_heads=1, rope_theta=1e4)
    with GgufFile.open(path) as file:
        config = file.config()
        assert config.expected_tensors() == {t.name: t.shape for t in file.tensors.values()}
    assert (config.head_dim, config.n_kv_heads, config.rope_theta) == (32, 1, 1e4)
    assert not config.tie_word_embeddings
    write_tiny_gguf(path, tied=True, metadata={"tokenizer.ggml.tokens": None})
    with GgufFile.open(path) as file:
        assert file.config().tie_word_embeddings
        assert file.config().vocab_size == 320


def test_harmless_tensors_are_let_through(path: Path) -> None:
    write_tiny_gguf(path, tensors={"rope_freqs.weight": np.ones(8, np.float32)})
    with GgufFile.open(path) as file:
        assert file.config().n_layers == 2


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        (
            {"blk.1.attn_k.bias": None, "output_norm.weight": None},
            FileFormatError,
            "2 of 26 tensors are missing, the first is blk.1.attn_k.bias (32,); "
            "download or convert the file again",
        ),
        (
            {"blk.0.ffn_up.weight": np.zeros((64, 96), np.float32)},
            FileFormatError,
            "blk.0.ffn_up.weight has the shape (64, 96), expected (96, 64) (rows, columns) "
            "from the metadata; the file contradicts itself",
        ),
        (
            {"token_embd.weight": np.zeros((319, 64), np.float32)},
            FileFormatError,
            "token_embd.weight has the shape (319, 64), expected (320, 64)",
        ),
        (
            {"blk.0.attn_q.bias": np.zeros((1, 64), np.float32)},
            FileFormatError,
            "blk.0.attn_q.bias has the shape (1, 64), expected (64,)",
        ),
        (
            {"blk.2.attn_norm.weight": np.zeros(64, np.float32)},
            UnsupportedError,
            "blk.2.attn_norm.weight (64,) is no part of a Qwen2 model of 2 layers, "
            "and leaving it out would change the results",
        ),
        (
            {"blk.0.attn_qkv.weight": np.zeros((128, 64), np.float32)},
            UnsupportedError,
            "blk.0.attn_qkv.weight (128, 64) is no part of a Qwen2 model of 2 layers, "
            "and leaving it out would change the results",
        ),
        (
            {f"blk.0.attn_{n}.weight": None for n in "qkv"}
            | {"blk.0.attn_qkv.weight": np.zeros((96, 64), np.float32)},
            FileFormatError,
            "blk.0.attn_qkv.weight has the shape (96, 64), expected (128, 64) (rows, columns)",
        ),
        (
            {"blk.0.attn_q.weight": None, "blk.0.attn_qkv.weight": np.zeros((128, 64), np.float32)},
            FileFormatError,
            "1 of 26 tensors are missing, the first is blk.0.attn_q.weight (64, 64)",
        ),
    ],
)
def test_tensors_against_the_configuration(
    path: Path, tensors: dict[str, Any], error: type[EdgeqwenError], message: str
) -> None:
    write_tiny_gguf(path, tensors=tensors)
    with GgufFile.open(path) as file, pytest.raises(error) as raised:
        file.config()
    assert f"{path}: {message}" in str(raised.value)


def test_configuration_of_another_architecture(path: Path) -> None:
    write_tiny_gguf(path, metadata={"general.architecture": "llama"})
    with GgufFile.open(path) as file, pytest.raises(UnsupportedError, match="is 'llama'; only"):
        file.config()
