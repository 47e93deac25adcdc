"""Sharded checkpoints: found by their index, which mustn't lie nor reach outside of its folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.quant.safetensors_index import WeightFiles
from tests.hf_checkpoints import safetensors_header

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shard(path: Path, *names: str) -> None:
    header = safetensors_header(dict.fromkeys(names, ("F32", (2,), 8)))
    path.write_bytes(header + b"".join(name[:1].encode() * 8 for name in names))


def index(folder: Path, weight_map: Any) -> None:
    content = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_one_file(tmp_path: Path) -> None:
    shard(tmp_path / "model.safetensors", "a", "b")
    weights = WeightFiles(tmp_path)
    assert set(weights.tensors) == {"a", "b"}
    assert weights.data("b").tobytes() == b"bbbbbbbb"
    weights.release("b", 0, 8)
    weights.close()


def test_two_files(tmp_path: Path) -> None:
    shard(tmp_path / FIRST, "a", "b")
    shard(tmp_path / SECOND, "c")
    index(tmp_path, {"a": FIRST, "b": FIRST, "c": SECOND})
    weights = WeightFiles(tmp_path)
    assert {name: weights.data(name).tobytes()[:1] for name in weights.tensors} == {
        "a": b"a",
        "b": b"b",
        "c": b"c",
    }
    weights.close()


def refused(folder: Path) -> str:
    with pytest.raises((FileFormatError, UnsupportedError)) as error:
        WeightFiles(folder)
    return str(error.value)


def test_missing_shards(tmp_path: Path) -> None:
    shard(tmp_path / FIRST, "a")
    index(tmp_path, {"a": FIRST, "b": SECOND})
    message = refused(tmp_path)
    assert "1 of 2 weight files are missing, the first is " + SECOND in message
    assert "download the checkpoint again" in message


def test_tensor_that_is_not_where_the_index_says(tmp_path: Path) -> None:
    shard(tmp_path / FIRST, "a")
    shard(tmp_path / SECOND, "c")
    index(tmp_path, {"a": SECOND, "c": FIRST})
    assert f"a should be in {SECOND}, but isn't" in refused(tmp_path)
    index(tmp_path, {"a": FIRST, "b": SECOND})
    assert f"b should be in {SECOND}, but isn't" in refused(tmp_path)


def test_tensor_in_two_files(tmp_path: Path) -> None:
    shard(tmp_path / FIRST, "a")
    shard(tmp_path / SECOND, "a", "b")
    index(tmp_path, {"a": FIRST, "b": SECOND})
    assert f"{SECOND}: a is in {tmp_path / FIRST} as well" in refused(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b.safetensors", "C:x.safetensors",
     "x.bin", "", 5, None, "x\x00.safetensors", "a" * 300 + ".safetensors", "\ud800.safetensors"],
)  # fmt: skip
def test_files_that_an_index_must_not_name(tmp_path: Path, name: Any) -> None:
    index(tmp_path, {"a": name})
    assert "expected the name of a .safetensors file beside the index" in refused(tmp_path)


@pytest.mark.parametrize("weight_map", [None, [], {}, "x"])
def test_index_without_a_map(tmp_path: Path, weight_map: Any) -> None:
    index(tmp_path, weight_map)
    assert "expected the file of each tensor" in refused(tmp_path)


def test_folders_without_weights(tmp_path: Path) -> None:
    assert "no weights; expected model.safetensors, or" in refused(tmp_path)
    shard(tmp_path / FIRST, "a")
    assert f"holds {FIRST}, but neither model.safetensors nor" in refused(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    assert "a pickled PyTorch checkpoint, which can run code when it is read" in refused(tmp_path)
