"""The demonstration model: a sound checkpoint, made once, whole or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from edgeqwen.cli import demo_model
from edgeqwen.gguf_file import GgufFile
from edgeqwen.text.tokenizer import Tokenizer
from tests.gguf_samples import byte_alphabet


def test_the_checkpoint_is_what_other_tools_read(tmp_path: Path) -> None:
    demo_model.write_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    weights = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert weights["lm_head.weight"].shape == (config["vocab_size"], config["hidden_size"])
    assert all(array.dtype == np.float32 for array in weights.values())
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert vocab == {letter: byte for byte, letter in enumerate(byte_alphabet())}


def test_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by the environment: the compiled kernels of other tests shall be found.
    monkeypatch.setattr(demo_model, "user_cache", lambda: tmp_path / "cache")
    path = demo_model.find_or_build()
    assert path.parent == tmp_path / "cache"
    assert [*path.parent.iterdir()] == [path]
    with GgufFile.open(path) as file:
        assert file.config().n_layers == 2
        tokenizer = Tokenizer.from_gguf(file)
        assert tokenizer.encode("hi") == [*b"hi"]
    made = path.stat().st_mtime_ns
    assert demo_model.find_or_build() == path
    assert path.stat().st_mtime_ns == made


def test_a_cache_folder_that_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(demo_model, "user_cache", lambda: tmp_path / "file" / "cache")
    monkeypatch.setattr("atexit.register", lambda *_, **__: None)
    path = demo_model.find_or_build()
    assert path.exists()
    assert not path.is_relative_to(tmp_path)
    path.unlink()
    path.parent.rmdir()


def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "user_cache", lambda: tmp_path)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_model, "_write_safetensors", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo_model.find_or_build()
    assert [*tmp_path.iterdir()] == []
