"""Every reason why a conversion can't be: found before anything is written, and said clearly."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.errors import EdgeqwenError, FileFormatError, OptionError, UnsupportedError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import quantize
from edgeqwen.quant.gguf_checkpoint import _value
from edgeqwen.quant.gguf_writer import GgufWriter, PlannedTensor
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry
from tests.gguf_samples import write_tiny_gguf
from tests.hf_checkpoints import safetensors_header, write_checkpoint

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I8": 1, "F8_E4M3": 1}
Entries = dict[str, tuple[str, tuple[int, ...]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "a", n_layers=1)


def refused(source: Path, kind: type[EdgeqwenError], output: Path | None = None) -> str:
    output = output or source.parent / "x.gguf"
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(kind) as error:
        quantize(source, output)
    assert sorted(source.parent.rglob("*")) == before
    return str(error.value)


def rewrite(folder: Path, how: Callable[[Entries], object]) -> None:
    """Writes the weights anew, all zeros, with other names, dtypes or shapes."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    entries = {
        name: (entry["dtype"], tuple(entry["shape"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }
    how(entries)
    sized = {
        name: (dtype, shape, math.prod(shape) * SIZES[dtype])
        for name, (dtype, shape) in entries.items()
    }
    zeros = bytes(sum(n_bytes for _, _, n_bytes in sized.values()))
    path.write_bytes(safetensors_header(sized) + zeros)


def put(name: str, dtype: str, *shape: int) -> Callable[[Entries], object]:
    return lambda entries: entries.update({name: (dtype, shape)})


def drop(*names: str) -> Callable[[Entries], object]:
    return lambda entries: [entries.pop(name) for name in names]


Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        (drop(f"{Q}.bias"), FileFormatError, f"1 of 14 tensors are missing, the first is {Q}.bias"),
        (
            drop("model.norm.weight", f"{Q}.weight"),
            FileFormatError,
            f"2 of 14 tensors are missing, the first is {Q}.weight; download the checkpoint again",
        ),
        (
            put("score.weight", "BF16", 2, 64),
            UnsupportedError,
            "a: score.weight: no part of a Qwen2 model of 1 layers; the checkpoint can't be",
        ),
        (
            put("model.layers.1.mlp.up_proj.weight", "BF16", 96, 64),
            UnsupportedError,
            "a: model.layers.1.mlp.up_proj.weight: no part of a Qwen2 model of 1 layers",
        ),
        (
            put(f"{Q}.weight", "BF16", 64, 32),
            FileFormatError,
            f"a: {Q}.weight: shape [64, 32], but config.json asks for [64, 64]",
        ),
        (
            put(f"{Q}.weight", "F8_E4M3", 64, 64),
            UnsupportedError,
            f"a: {Q}.weight: dtype F8_E4M3; only F32, F16, BF16 can be converted",
        ),
        (put(f"{Q}.weight", "F64", 64, 64), UnsupportedError, "dtype F64; only F32, F16, BF16"),
        (
            put("norm.weight", "BF16", 64),
            FileFormatError,
            "a: norm.weight: the same tensor as model.norm.weight",
        ),
    ],
)
def test_tensors(
    folder: Path,
    how: Callable[[Entries], object],
    kind: type[EdgeqwenError],
    message: str,
) -> None:
    rewrite(folder, how)
    assert message in refused(folder, kind)


def test_tensors_that_may_be_left_out(folder: Path) -> None:
    rewrite(folder, put("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 8))
    assert quantize(folder, folder.parent / "x.gguf").notes == ()
    rewrite(folder, put("lm_head.weight", "BF16", 448, 64))
    assert quantize(folder, folder.parent / "x.gguf").notes == (
        "lm_head.weight is left out: config.json ties it to the embedding",
    )


def test_untied_model_without_output(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", n_layers=1, tied=False)
    rewrite(folder, drop("lm_head.weight"))
    message = refused(folder, FileFormatError)
    assert "1 of 15 tensors are missing, the first is lm_head.weight" in message


def test_checkpoint_without_template_is_noted(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["chat_template"]
    path.write_text(json.dumps(settings))
    assert quantize(folder, folder.parent / "x.gguf").notes == (
        "the checkpoint has no chat template: the model only completes text",
    )


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            UnsupportedError,
            "quantized already ('gptq'); convert the original one",
        ),
        ({"use_sliding_window": True}, UnsupportedError, "use_sliding_window is True"),
        ({"model_type": "llama"}, UnsupportedError, "model_type is 'llama'"),
        ({"architectures": ["Qwen2VLForCausalLM"]}, UnsupportedError, "'Qwen2VLForCausalLM'"),
        ({"num_hidden_layers": 10**9}, FileFormatError, "num_hidden_layers is 1000000000"),
        ({"hidden_size": None}, FileFormatError, "hidden_size is missing"),
        ({"vocab_size": 400}, FileFormatError, "shape [448, 64], but config.json asks for [400, "),
        ({"vocab_size": 4_000_000}, FileFormatError, "but config.json asks for [4000000, 64]"),
    ],
)
def test_configurations(
    tmp_path: Path, config: dict[str, Any], kind: type[EdgeqwenError], message: str
) -> None:
    folder = write_checkpoint(tmp_path / "a", n_layers=1, config=config, vocab_size=448)
    if config == {"vocab_size": 400}:
        assert "model.embed_tokens.weight" in refused(folder, kind)
    assert message in refused(folder, kind)


def test_nan_in_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1:] = b"\x7f"
    data[-2:-1] = b"\xc0"
    path.write_bytes(data)
    message = refused(folder, FileFormatError)
    assert "a: model.norm.weight: row 0 holds 1 weights that are NaN or infinite" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no config.json; expected a Hugging Face checkpoint"),
        ("tokenizer.json", "no tokenizer; expected tokenizer.json, or vocab.json and merges.txt"),
        ("model.safetensors", "no weights; expected model.safetensors, or"),
    ],
)
def test_files_that_are_missing(folder: Path, name: str, message: str) -> None:
    (folder / name).unlink()
    assert message in refused(folder, FileFormatError)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_json_that_is_none(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a": ')
    assert f"{folder / name}: not JSON (Expecting value" in refused(folder, FileFormatError)
    (folder / name).write_text("[]")
    assert f"{folder / name}: holds a list of 0" in refused(folder, FileFormatError)
    (folder / name).write_bytes(b" " * ((32 << 20) + 1))
    assert f"{folder / name}: larger than" in refused(folder, FileFormatError)
    (folder / name).unlink()
    (folder / name).mkdir()
    assert f"{folder / name}: is no regular file" in refused(folder, FileFormatError)


def test_sources(folder: Path, tmp_path: Path) -> None:
    assert "no such folder or file" in refused(tmp_path / "gone", OptionError)
    message = refused(folder / "model.safetensors", OptionError)
    assert f"is one file of a checkpoint; give its folder, {folder}" in message
    (tmp_path / "y").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "not a GGUF file, but a zip archive" in refused(tmp_path / "y", FileFormatError)


def test_outputs(folder: Path, tmp_path: Path) -> None:
    assert "is a folder; give the name" in refused(folder, OptionError, tmp_path)
    assert "doesn't exist; create it" in refused(folder, OptionError, tmp_path / "b" / "x.gguf")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_output_that_is_a_file_of_the_source(folder: Path, name: str) -> None:
    message = refused(folder, OptionError, folder / name)
    assert message == f"{folder / name}: is a file of the source; choose another output"
    (folder.parent / "link").symlink_to(folder / name)
    assert "is a file of the source" in refused(folder, OptionError, folder.parent / "link")


def test_output_that_is_the_source(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    quantize(folder, path)
    assert "is a file of the source; choose another" in refused(path, OptionError, path)


@pytest.mark.parametrize("kind", [str, Path])
def test_output_that_is_the_importance_matrix(
    folder: Path, tmp_path: Path, kind: Callable[[Path], str | Path]
) -> None:
    path, link = tmp_path / "imatrix.gguf", tmp_path / "link.gguf"
    Imatrix({"blk.0.ffn_down.weight": Entry(np.ones(96, np.float32), 1)}).write(path)
    link.symlink_to(path)
    before = path.read_bytes()
    for output, given in ((path, path), (link, path), (path, link)):
        with pytest.raises(OptionError) as error:
            quantize(folder, output, imatrix=kind(given))
        assert str(error.value) == f"{output}: is the importance matrix; choose another output"
    assert path.read_bytes() == before


def test_output_that_is_another_file_of_the_source(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", shard_tensors=9)
    shards = sorted(tmp_path.iterdir())
    assert len(shards) == 3
    for output in shards:
        message = refused(shards[1], OptionError, output)
        assert message == f"{output}: is a file of the source; choose another output"


def test_output_beside_the_source(folder: Path) -> None:
    for _ in range(2):  # an older result is replaced
        quantize(folder, folder / "x.gguf")
    assert (folder / "x.gguf").exists()


def test_types_of_a_gguf_that_can_not_be_read(folder: Path, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.gguf", tmp_path / "x.gguf"
    quantize(folder, whole, "f32")
    with GgufFile.open(whole) as file:
        tensors = [
            PlannedTensor(
                t.name, GgmlType.I32 if t.name == "blk.0.ffn_up.weight" else t.type, t.shape
            )
            for t in file.tensors.values()
        ]
        metadata = {key: _value(value) for key, value in file.metadata.items()}
        with GgufWriter(path, metadata, tensors) as writer:
            for tensor in tensors:
                writer.write(np.zeros(tensor.n_bytes, np.uint8).data)
                writer.end_tensor()
    message = refused(path, UnsupportedError, tmp_path / "y.gguf")
    assert "blk.0.ffn_up.weight: I32 can't be turned into floats; convert the original" in message
