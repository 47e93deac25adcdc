"""Packed files: the same weights, the same answers, and nothing that isn't checked."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeqwen.cache.fingerprint import is_known, weights_digest
from edgeqwen.engine import Engine
from edgeqwen.errors import FileFormatError, OptionError, UnsupportedError
from edgeqwen.formats import FORMATS
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_file import GgufFile
from edgeqwen.gguf_packed import PREFIX, described
from edgeqwen.gguf_tensors import TensorInfo, split_fused
from edgeqwen.model.weights import Weights
from edgeqwen.quant import pack, quantize
from tests.gguf_samples import write_tiny_gguf
from tests.hf_checkpoints import write_checkpoint

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
SIZES = {"head_dim": 32, "n_heads": 2, "n_kv_heads": 1}
WIDE = {"hidden_size": 256, "intermediate_size": 256, "n_heads": 8}


def logits(path: Path) -> np.ndarray:
    with GgufFile.open(path) as file:
        engine = Engine(file, n_threads=2, max_context=32)
        sequence = engine.new_sequence()
        found = engine.logits(sequence, TOKENS)
        sequence.close()
        engine.close()
    return found


def written(tmp_path: Path, **options: Any) -> tuple[Path, Path]:
    """Writes a tiny model, and packs it."""
    source, output = tmp_path / "tiny.gguf", tmp_path / "packed.gguf"
    write_tiny_gguf(source, **{**SIZES, **options})
    assert pack(source, output, n_threads=2) == output.stat().st_size
    return source, output


@pytest.mark.parametrize("format_", FORMATS.values(), ids=lambda f: f.name)
def test_the_same_logits_in_every_type(tmp_path: Path, format_: Any) -> None:
    sizes = WIDE if format_.tile_blocks > 1 else SIZES
    source, output = written(tmp_path, types=format_.name, **sizes)
    np.testing.assert_array_equal(logits(output), logits(source))


def test_sessions_of_the_source_fit_the_packed_file(tmp_path: Path) -> None:
    source, output = written(tmp_path)
    with GgufFile.open(source) as plain, GgufFile.open(output) as file:
        assert is_known(file)
        assert weights_digest(file, 2) == weights_digest(plain, 2)
        for senseless in (None, 5, "ff", "x" * 64):
            file.metadata[f"{PREFIX}source"] = senseless
            assert len(weights_digest(file, 2)) == 32
            assert weights_digest(file, 2) != weights_digest(plain, 2)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_weights_are_used_where_they_lie(tmp_path: Path, tied: bool) -> None:
    types = {"token_embd": "Q8_0", "blk.0.attn_k": "Q8_0", "blk.1.ffn_down": "F16"}
    source, output = written(tmp_path, types=types, tied=tied, vocab_size=331)
    np.testing.assert_array_equal(logits(output), logits(source))
    with GgufFile.open(source) as plain, GgufFile.open(output) as file:
        assert file.is_packed
        assert not plain.is_packed
        assert {n: (t.type, t.shape) for n, t in file.tensors.items()} == {
            n: (t.type, t.shape) for n, t in plain.tensors.items()
        }
        metadata = {k: v for k, v in file.metadata.items() if not k.startswith(PREFIX)}
        assert metadata == plain.metadata
        weights = Weights(file, file.config())
        assert weights.n_bytes == 0
        # One matrix where the types are the same, as when they are packed at loading.
        assert [m.names for m in weights.layers[1].qkv] == [
            tuple(f"blk.1.attn_{n}.weight" for n in "qkv")
        ]
        assert len(weights.layers[0].qkv) == 3
        weights.close()


def test_work_in_small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = written(tmp_path, types="Q4_0")
    shutil.move(whole, tmp_path / "whole.gguf")
    monkeypatch.setattr("edgeqwen.quant.packed_file._TASK_BYTES", 1)
    _, parts = written(tmp_path, types="Q4_0")
    assert parts.read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_progress_counts_the_output_s_bytes(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    steps: list[tuple[int, int]] = []
    size = pack(tmp_path / "tiny.gguf", tmp_path / "x.gguf", progress=lambda *s: steps.append(s))
    assert steps == sorted(steps)
    assert steps[-1] == (size, size)


def test_another_reader_finds_its_way(tmp_path: Path) -> None:
    """The container is a GGUF as others read them, whose matrices are plain bytes."""
    source, output = written(tmp_path, types="Q4_0")
    reader = gguf.GGUFReader(output)
    norms = {t.name: t for t in reader.tensors if t.tensor_type == gguf.GGMLQuantizationType.F32}
    original = {t.name: t for t in gguf.GGUFReader(source).tensors}
    assert norms
    for name, tensor in norms.items():
        np.testing.assert_array_equal(tensor.data, original[name].data)
    assert {t.tensor_type.name for t in reader.tensors} == {"F32", "I8"}


def test_quantize_packs_too(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    plain, packed, both = (tmp_path / f"{n}.gguf" for n in ("plain", "packed", "both"))
    quantize(folder, plain, "q4_0")
    pack(plain, packed)
    steps: list[tuple[int, int]] = []
    report = quantize(folder, both, "q4_0", packed=True, progress=lambda *s: steps.append(s))
    assert both.read_bytes() == packed.read_bytes()
    assert report.output == both
    assert report.n_bytes == both.stat().st_size
    assert steps[-1][0] == steps[-1][1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("both.gguf", "model", "packed.gguf", "plain.gguf"),
    ]


def test_what_is_refused(tmp_path: Path) -> None:
    source, output = written(tmp_path)
    before = output.read_bytes()
    with pytest.raises(UnsupportedError, match=r"packed\.gguf: is packed already"):
        pack(output, tmp_path / "again.gguf")
    with pytest.raises(UnsupportedError, match="is packed, which keeps weights in another order"):
        quantize(output, tmp_path / "again.gguf")
    with pytest.raises(OptionError, match=r"tiny\.gguf: is a file of the source"):
        pack(source, source)
    folder = write_checkpoint(tmp_path / "model")
    with pytest.raises(OptionError, match="is a file of the source"):
        quantize(folder, folder / "config.json", packed=True)
    assert output.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def changed(path: Path, key: str, old: bytes, new: bytes) -> None:
    """Replaces bytes behind a metadata key."""
    data = bytearray(path.read_bytes())
    at = data.index(old, data.index(key.encode()))
    assert len(old) == len(new)
    data[at : at + len(old)] = new
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("key", "old", "new", "message"),
    [
        ("version", b"\x04\0\0\0\x01", b"\x04\0\0\0\x63", "layout version 99, and this edgeqwen"),
        ("tensors", b"token_embd", b"token_embx", r"tensors\[0\] is 'token_embx.weight', expected"),
        ("layouts", b"Q8_0", b"Q8_9", "token_embd.weight is Q8_9, which this version can't run"),
        ("types", b"\x08\0\0\0\0", b"\x63\0\0\0\0", r"types\[0\] is 99, expected a GGML type"),
        ("shapes", b"\x40\x01\0", b"\0\0\0", "shapes of token_embd.weight are"),
        ("shapes", b"\x40\x01\0", b"\x80\x01\0", "has the shape"),
    ],
)
def test_a_file_that_contradicts_itself(
    tmp_path: Path, key: str, old: bytes, new: bytes, message: str
) -> None:
    _, output = written(tmp_path, types={"token_embd": "Q8_0", "blk.0": "Q4_0", "blk.1": "Q4_0"})
    changed(output, PREFIX + key, old, new)
    with pytest.raises((FileFormatError, UnsupportedError), match=message):
        logits(output)


def test_columns_that_are_no_whole_tiles_never_reach_a_kernel(tmp_path: Path) -> None:
    _, output = written(tmp_path, types="Q8_0")
    data = output.read_bytes().replace(b"Q8_0", b"Q4_K")
    types, n = np.full(15, 8, np.int32).tobytes(), 4 * 15
    at = data.index(types, data.index(f"{PREFIX}types".encode()))
    output.write_bytes(data[:at] + np.full(15, 12, np.int32).tobytes() + data[at + n :])
    with pytest.raises(FileFormatError, match="64 columns, expected whole tiles of 256 in Q4_K"):
        logits(output)


def test_a_file_packed_in_part_is_refused(tmp_path: Path) -> None:
    """As two shards of different origin would be: what isn't packed has no place in the file."""
    _, output = written(tmp_path, types="Q4_0")
    with GgufFile.open(output) as file:
        name = "blk.0.ffn_up.weight"
        file.tensors = {**file.tensors, name: dataclasses.replace(file.tensors[name], layout=None)}
        with pytest.raises(FileFormatError, match="some of the model's matrices are packed"):
            file.config()


def test_q_k_and_v_in_one_are_not_packed(tmp_path: Path) -> None:
    source, _ = written(tmp_path)
    with GgufFile.open(source) as file:
        config = file.config()
    whole = TensorInfo("blk.0.attn_qkv.weight", GgmlType.Q8_0, (128, 64), 0, 8704, "Q8_0")
    with pytest.raises(FileFormatError, match=r"a\.gguf: blk\.0\.attn_qkv\.weight is packed"):
        split_fused({whole.name: whole}, config, "a.gguf")


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("shapes", [1.5, 2.0], r"shapes\[0\] is 1\.5, expected a whole number"),
        ("shapes", ["3", "4"], r"shapes\[0\] is '3', expected a whole number"),
        ("types", [2.0], r"types\[0\] is 2\.0, expected a whole number"),
        ("version", True, "layout version True"),
    ],
)
def test_what_is_no_whole_number(key: str, values: Any, message: str) -> None:
    matrix = TensorInfo("a", GgmlType.I8, (18,), 0, 18)
    metadata = {
        f"{PREFIX}version": 1,
        f"{PREFIX}tensors": ["a"],
        f"{PREFIX}layouts": ["Q4_0"],
        f"{PREFIX}types": [2],
        f"{PREFIX}shapes": [1, 32],
    }
    assert described({"a": matrix}, metadata, "x")["a"].shape == (1, 32)
    with pytest.raises((FileFormatError, UnsupportedError), match=message):
        described({"a": matrix}, {**metadata, PREFIX + key: values}, "x")


def test_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    double = gguf.GGUFValueType.FLOAT64
    metadata = {"test.large": (1e300, double), "test.third": (1 / 3, double), "test.half": 0.5}
    _, output = written(tmp_path, metadata=metadata)
    with GgufFile.open(output) as file:
        found = [file.metadata[key] for key in metadata]
    assert found == [1e300, 1 / 3, 0.5]


@pytest.mark.parametrize("type_", ["Q8_0", "Q6_K"])
def test_a_screened_head_is_packed(
    tmp_path: Path, type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept apart lies before the tiles, in reverse, also where it is written in parts."""
    monkeypatch.setattr("edgeqwen.model.weights.LEAST_ROWS", 300)
    monkeypatch.setattr("edgeqwen.quant.packed_file._TASK_BYTES", 1)
    source, output = written(tmp_path, types={"token_embd": type_}, vocab_size=331, **WIDE)
    with GgufFile.open(output) as file:
        assert file.tensors["token_embd.weight"].layout == f"{type_} screened"
    np.testing.assert_array_equal(logits(output), logits(source))


def test_tiles_of_another_size_never_reach_a_kernel(tmp_path: Path) -> None:
    """The type says how large tiles are: one that takes more than there is would be read past."""
    _, output = written(tmp_path, types="Q4_0")
    data = output.read_bytes().replace(b"Q4_0", b"Q8_0")
    at = data.index(f"{PREFIX}types".encode())
    types, n = np.full(15, 2, np.int32).tobytes(), 4 * 15
    at = data.index(types, at)
    output.write_bytes(data[:at] + np.full(15, 8, np.int32).tobytes() + data[at + n :])
    with pytest.raises(
        FileFormatError, match=r"bytes of tiles, expected 21760 for \(320, 64\) in Q8"
    ):
        logits(output)
