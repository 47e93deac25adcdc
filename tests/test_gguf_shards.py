"""Models in several files, and q, k and v in one tensor."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.errors import FileFormatError
from edgeqwen.gguf_file import GgufFile
from tests.gguf_bytes import pair, raw
from tests.gguf_samples import write_tiny_gguf


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Writes a model in files of nine tensors each, as ``gguf`` splits it."""
    write_tiny_gguf(tmp_path / "tiny.gguf", shard_tensors=9, types="Q8_0")
    found = sorted(tmp_path.glob("tiny-*.gguf"))
    assert [path.name for path in found] == [f"tiny-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    return found


def refused(path: Path) -> str:
    with pytest.raises(FileFormatError) as caught:
        GgufFile.open(path)
    assert str(caught.value).startswith(f"{path.parent}/")
    return str(caught.value)


@pytest.mark.parametrize("named", [0, 1, 2])
def test_any_of_the_files_may_be_named(shards: list[Path], named: int, tmp_path: Path) -> None:
    whole = write_tiny_gguf(tmp_path / "whole.gguf", types="Q8_0")
    with GgufFile.open(shards[named]) as file, GgufFile.open(tmp_path / "whole.gguf") as same:
        assert file.path == shards[named]
        assert file.paths == shards
        assert file.size == sum(path.stat().st_size for path in shards)
        assert list(file.tensors) == list(whole)
        assert file.config() == same.config()
        for name in whole:
            np.testing.assert_array_equal(file.data(name), same.data(name))
            file.release(name)
        places = [file.place(tensor) for tensor in file.tensors.values()]
        assert places == sorted(places)
        assert {place[0] for place in places} == {0, 1, 2}


def test_missing_files_are_named(shards: list[Path]) -> None:
    shards[1].unlink()
    assert (
        "tiny-00003-of-00003.gguf: is one of 3 files of a model, and tiny-00002-of-00003.gguf is "
        "missing beside it; download the whole model into one folder"
    ) in refused(shards[2])
    shards[0].unlink()
    assert "tiny-00001-of-00003.gguf and tiny-00002-of-00003.gguf are missing" in refused(shards[2])


def test_a_file_without_its_name(shards: list[Path]) -> None:
    renamed = shards[0].rename(shards[0].with_name("model.gguf"))
    assert (
        "model.gguf: is one of 3 files of a model, expected the name NAME-00001-of-00003.gguf"
    ) in refused(renamed)


def test_files_in_the_wrong_order(shards: list[Path]) -> None:
    content = shards[1].read_bytes()
    shards[1].write_bytes(shards[2].read_bytes())
    shards[2].write_bytes(content)
    message = "00002-of-00003.gguf: says that it is file 3 of 3, which its name doesn't"
    assert message in refused(shards[0])


def test_a_damaged_file_among_them_is_named(shards: list[Path]) -> None:
    shards[2].write_bytes(b"GGUF")
    assert "tiny-00003-of-00003.gguf" in refused(shards[0])


def test_files_of_different_models(shards: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_tiny_gguf(other / "tiny.gguf", shard_tensors=12, types="Q8_0", tied=False, n_layers=2)
    shards[2].write_bytes((other / "tiny-00003-of-00003.gguf").read_bytes())
    assert "tensors, expected 26 (split.tensors.count); download them again" in refused(shards[0])
    write_tiny_gguf(other / "tiny.gguf", shard_tensors=9, types="Q8_0")
    shards[2].write_bytes(
        shards[0].read_bytes().replace(number("split.no", 0), number("split.no", 2))
    )
    assert "token_embd.weight is in tiny-00001-of-00003.gguf, too" in refused(shards[0])


def number(key: str, value: int) -> bytes:
    return pair(key, 2, struct.pack("<H", value))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([number("split.count", 65535)], "split.count is 65535, expected a number from 0 to 9999"),
        (
            [number("split.count", 3), number("split.no", 3)],
            "split.no is 3, expected a number from 0 to 2; the file is damaged",
        ),
        ([number("split.no", 1)], "split.no is 1, expected a number from 0 to 0"),
        ([pair("split.count", 7, b"\1")], "split.count is True, expected a number"),
    ],
)
def test_numbers_that_cannot_be(tmp_path: Path, pairs: list[bytes], message: str) -> None:
    path = tmp_path / "x-00001-of-00003.gguf"
    path.write_bytes(raw(*pairs))
    assert message in refused(path)


def test_one_shard_is_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(raw(number("split.count", 1)))
    GgufFile.open(path).close()


def fused(weights: dict[str, np.ndarray], *layers: int) -> dict[str, Any]:
    """Returns the changes that put q, k and v of some layers into one tensor."""
    changes: dict[str, Any] = {}
    for i in layers:
        for kind in ("weight", "bias"):
            names = [f"blk.{i}.attn_{n}.{kind}" for n in "qkv"]
            changes[f"blk.{i}.attn_qkv.{kind}"] = np.concatenate([weights[n] for n in names])
            changes |= dict.fromkeys(names)
    return changes


def test_fused_q_k_and_v_are_read_as_three(tmp_path: Path) -> None:
    weights = write_tiny_gguf(tmp_path / "tiny.gguf")
    write_tiny_gguf(tmp_path / "fused.gguf", tensors=fused(weights, 1))
    with GgufFile.open(tmp_path / "fused.gguf") as file:
        config = file.config()
        assert "blk.1.attn_qkv.weight" in file.tensors
        assert "blk.1.attn_q.weight" not in file.tensors
        for name, shape in config.expected_tensors().items():
            assert file.tensor(name).shape == shape
            found = file.data(name).view(np.float32).reshape(shape)
            np.testing.assert_array_equal(found, weights[name])
            file.release(name)
