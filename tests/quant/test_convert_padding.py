"""pad_ffn: zeros fill up the feed-forward size, and no result changes."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeqwen.engine import Engine
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import convert, quantize
from edgeqwen.quant.checkpoint import open_checkpoint
from edgeqwen.quant.gguf_checkpoint import can_dequantize
from edgeqwen.quant.overrides import Overrides
from edgeqwen.quant.padding import PaddedCheckpoint
from edgeqwen.quant.plan import prepare
from edgeqwen.quant.recipe import recipe_named
from tests.gguf_samples import write_tiny_gguf
from tests.hf_checkpoints import write_checkpoint
from tests.oracles.blocks import read_weights, tensor_types


def logits(path: Path) -> np.ndarray:
    with GgufFile.open(path) as file:
        engine = Engine(file, max_context=64)
        sequence = engine.new_sequence()
        found = engine.logits(sequence, list(range(40)))
        sequence.close()
        engine.close()
    return found


def check_padded(exact: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    """Compares weights with those of the same model, filled up with zeros where need be."""
    assert exact.keys() == found.keys()
    for name, weights in found.items():
        before = exact[name]
        if "ffn_gate" in name or "ffn_up" in name:
            before = np.pad(before, ((0, weights.shape[0] - before.shape[0]), (0, 0)))
        elif "ffn_down" in name:
            before = np.pad(before, ((0, 0), (0, weights.shape[1] - before.shape[1])))
        assert np.array_equal(weights, before), name


@pytest.mark.parametrize("type", ["f32", "f16"])
def test_logits_are_the_same(tmp_path: Path, type: str) -> None:
    folder = write_checkpoint(tmp_path / "a", hidden_size=128, intermediate_size=288)
    plain, padded = tmp_path / "plain.gguf", tmp_path / "padded.gguf"
    quantize(folder, plain, type)
    report = quantize(folder, padded, type, pad_ffn=True)
    assert report.notes == ("the feed-forward size is filled up with zeros, from 288 to 512",)
    with GgufFile.open(padded) as file:
        assert file.metadata["qwen2.feed_forward_length"] == 512
        assert file.tensors["blk.1.ffn_up.weight"].shape == (512, 128)
        assert file.tensors["blk.1.ffn_down.weight"].shape == (128, 512)
    assert logits(plain).std() > 0.5
    assert np.array_equal(logits(plain), logits(padded))


@pytest.mark.parametrize("options", [{"dtype": "bf16"}, {"dtype": "f16", "tied": False}])
def test_from_hugging_face(tmp_path: Path, options: dict[str, Any]) -> None:
    # Of the rows of gate and up, some tasks hold both kinds and some only zeros.
    sizes = {"n_layers": 1, "hidden_size": 96, "intermediate_size": 5400}
    folder = write_checkpoint(tmp_path / "a", **sizes, **options)
    quantize(folder, tmp_path / "1.gguf", "f32")
    quantize(folder, tmp_path / "2.gguf", "f32", pad_ffn=True)
    weights = read_weights(tmp_path / "2.gguf")
    assert weights["blk.0.ffn_up.weight"].shape == (5632, 96)
    check_padded(read_weights(tmp_path / "1.gguf"), weights)


@pytest.mark.parametrize("type", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "IQ4_NL"])
def test_from_gguf(tmp_path: Path, type: str) -> None:
    source = tmp_path / "a.gguf"
    write_tiny_gguf(source, types=type)
    quantize(source, tmp_path / "1.gguf", "f32")
    quantize(source, tmp_path / "2.gguf", "f32", pad_ffn=True)
    assert tensor_types(source)["blk.0.ffn_down.weight"] == type
    check_padded(read_weights(tmp_path / "1.gguf"), read_weights(tmp_path / "2.gguf"))


@pytest.mark.parametrize("type", ["Q8_0", "Q5_0"])
def test_blocks_that_need_no_change_are_copied(tmp_path: Path, type: str) -> None:
    source, output = tmp_path / "a.gguf", tmp_path / "b.gguf"
    write_tiny_gguf(source, types=type)
    quantize(source, output, type.lower(), tensor_types={"": type}, pad_ffn=True)
    with GgufFile.open(source) as before, GgufFile.open(output) as after:
        for part in ("attn_q", "ffn_up", "ffn_down"):
            name = f"blk.1.{part}.weight"
            rows, columns = before.tensors[name].shape
            row_bytes = before.tensors[name].type.n_bytes((columns,))
            padded = after.tensors[name]
            assert padded.type.name == type
            found = after.data(name).reshape(padded.shape[0], -1)
            assert np.array_equal(found[:rows, :row_bytes].ravel(), before.data(name))
    check_padded(read_weights(source), read_weights(output))


def test_padded_rows_fill_blocks_of_256(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", hidden_size=256, intermediate_size=320, n_layers=8)
    report = quantize(folder, tmp_path / "x.gguf", "q4_k_m", pad_ffn=True)
    types = tensor_types(tmp_path / "x.gguf")
    assert types["blk.0.ffn_down.weight"] == "Q6_K"
    assert types["blk.1.ffn_down.weight"] == "Q4_K"
    assert len(report.notes) == 1
    weights = read_weights(tmp_path / "x.gguf")
    for i in range(8):
        assert not weights[f"blk.{i}.ffn_down.weight"][:, 320:].any()
        assert not weights[f"blk.{i}.ffn_up.weight"][320:].any()


def test_a_multiple_is_left_alone(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", intermediate_size=512)
    plain, padded = tmp_path / "1.gguf", tmp_path / "2.gguf"
    quantize(folder, plain, "q8_0")
    report = quantize(folder, padded, "q8_0", pad_ffn=True)
    assert report.notes == (
        "the feed-forward size, 512, is a multiple of 256 already: nothing was padded",
    )
    assert plain.read_bytes() == padded.read_bytes()


def test_padding_twice_is_padding_once(tmp_path: Path) -> None:
    once, twice = tmp_path / "1.gguf", tmp_path / "2.gguf"
    quantize(write_checkpoint(tmp_path / "a"), once, "f16", pad_ffn=True)
    quantize(once, twice, "f16", pad_ffn=True)
    assert once.read_bytes() == twice.read_bytes()


@pytest.mark.parametrize("name", [t.name for t in GgmlType if can_dequantize(t)])
def test_zero_bytes_mean_zeros_in_every_type(name: str) -> None:
    type = GgmlType[name]
    assert 256 % type.block_size == 0
    blocks = np.zeros((2, type.type_size), np.uint8)
    assert not gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(type))).any()


def test_added_columns_have_no_importance(tmp_path: Path) -> None:
    source = tmp_path / "a.gguf"
    write_tiny_gguf(source)
    checkpoint = PaddedCheckpoint(open_checkpoint(source))
    name = "blk.0.ffn_down.weight"
    plan, _ = prepare(checkpoint, source, source, recipe_named("q4_0"), Overrides({}))
    known = {name: np.arange(1, 97, dtype=np.float32)}
    found = {t.tensor.name: t.importance for t in convert._tasks(checkpoint, plan.tensors, known)}
    checkpoint.close()
    importance = found.pop(name)
    assert importance is not None
    assert importance.shape == (256,)
    assert np.array_equal(importance[:96], known[name])
    assert not importance[96:].any()
    assert set(found.values()) == {None}
