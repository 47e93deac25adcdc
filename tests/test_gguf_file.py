"""GgufFile on files by gguf.GGUFWriter, and on paths that hold no file."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeqwen.errors import ClosedError, FileFormatError, UnsupportedError
from edgeqwen.gguf_file import GgufFile
from tests.gguf_samples import tiny_metadata, tiny_tensors, write_gguf, write_tiny_gguf

T = gguf.GGUFValueType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q8_0"])
def test_tensors_as_written(path: Path, version: int, kind: str) -> None:
    weights = write_tiny_gguf(path, types=kind, version=version, tied=False)
    with GgufFile.open(str(path)) as file:
        assert (file.path, file.version) == (path, version)
        assert file.size == path.stat().st_size
        assert list(file.tensors) == list(weights)
        for name, expected in weights.items():
            info = file.tensors[name]
            assert info.name == name
            assert info.shape == expected.shape
            assert info.type.name == (kind if expected.ndim > 1 else "F32")
            assert info.offset % 32 == 0
            data = file.data(name)
            assert (data.dtype, data.shape) == (np.uint8, (info.n_bytes,))
            assert info.n_bytes == info.type.n_bytes(info.shape)
            rows = data.reshape(*info.shape[:-1], -1)
            found = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(info.type))
            np.testing.assert_array_equal(found, expected)


def test_metadata_as_written(path: Path) -> None:
    written = tiny_metadata() | {
        "a.u8": (255, T.UINT8),
        "a.i8": (-1, T.INT8),
        "a.u16": (65535, T.UINT16),
        "a.i16": (-2, T.INT16),
        "a.i32": (-(1 << 31), T.INT32),
        "a.u64": ((1 << 64) - 1, T.UINT64),
        "a.i64": (-(1 << 63), T.INT64),
        "a.f32": (0.7, T.FLOAT32),
        "a.f64": (0.1, T.FLOAT64),
        "a.yes": True,
        "a.empty": ("", T.STRING),
        "a.snow": "雪\n☃",
        "a.floats": [0.5, 1.5],
        "a.flags": [True, False],
        "a.strings": ["", "x" * 300, "é", "", "雪"],
    }
    write_gguf(path, written, {})
    with GgufFile.open(path) as file:
        found = file.metadata
    expected = {k: v[0] if isinstance(v, tuple) else v for k, v in written.items()}
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key] == value, key
        if not isinstance(value, list):
            assert type(found[key]) is type(value), key


def test_arrays(path: Path) -> None:
    numbers, words = [3, 1, 2, 4], ["a", "", "雪", "d"]
    write_gguf(path, {"a.numbers": numbers, "a.words": words}, {})
    file = GgufFile.open(path)
    file.close()
    for key, elements in (("a.numbers", numbers), ("a.words", words)):
        found = file.metadata[key]
        assert len(found) == 4
        assert list(found) == found.tolist() == elements
        assert (found[0], found[-1], found[1:3]) == (elements[0], elements[-1], elements[1:3])
        assert found == elements == found
        assert found != elements[:3]
        assert found != [*elements[:3], elements[0]]
        assert found != 7
        assert elements[2] in found
        assert found.index(elements[3]) == 3
        assert repr(found).endswith(f"(4: {elements[:3]}...)")
        with pytest.raises(IndexError):
            found[4]
        with pytest.raises(TypeError):
            hash(found)
        with pytest.raises(TypeError):
            found[0] = elements[0]
    assert type(file.metadata["a.numbers"][0]) is int
    assert not file.metadata["a.numbers"].array.flags.writeable


@pytest.mark.parametrize("length", [1, 63, 64, 255, 256, 300, 70000])
def test_strings_of_every_length(path: Path, length: int) -> None:
    words = [chr(97 + i % 26) * (length if i % 3 else i % 7) for i in range(200)]
    words += ["\0" * 9, "\0" * 16 + "a", "a" + "\0" * 8]  # look like lengths
    words += [str(i) for i in range(100)] * 100 + [""] * 100
    write_gguf(path, {"a.words": words, "a.last": 7}, {})
    with GgufFile.open(path) as file:
        assert file.metadata["a.words"].tolist() == words
        assert file.metadata["a.words"][-101] == "99"
        assert file.metadata["a.last"] == 7


def test_real_vocabulary(shared_data: Path) -> None:
    vocabulary = shared_data / "ggml-vocab-qwen2.gguf"
    # The parsing, not the machine's mood: the best of several.
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        file = GgufFile.open(vocabulary)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
    metadata = file.metadata
    assert not file.tensors
    tokens = metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == 151936
    assert tokens[151645] == "<|im_end|>"
    assert len(set(tokens)) == 151936
    assert len(metadata["tokenizer.ggml.merges"]) == 151387
    assert metadata["tokenizer.ggml.merges"][:2] == ["Ġ Ġ", "ĠĠ ĠĠ"]
    assert metadata["tokenizer.ggml.token_type"].array.dtype == np.int32
    with pytest.raises(UnsupportedError, match="holds no tensors, only a vocabulary; a model"):
        file.config()
    file.close()


def test_vocabulary_without_configuration(path: Path) -> None:
    vocabulary = {k: v for k, v in tiny_metadata().items() if k.startswith("tokenizer.")}
    write_gguf(path, vocabulary, {})
    path.write_bytes(path.read_bytes().rstrip(b"\0"))
    with GgufFile.open(path) as file:
        assert len(file.metadata["tokenizer.ggml.tokens"]) == 320
        with pytest.raises(FileFormatError, match=r"general\.architecture is missing"):
            file.config()


def test_views_are_read_only_and_closing_is_safe(path: Path) -> None:
    weights = write_tiny_gguf(path)
    file = GgufFile.open(path)
    data = file.data("output_norm.weight")
    assert not data.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        data[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        data.flags.writeable = True
    with pytest.raises(KeyError):
        file.data("nothing")
    file.close()
    file.close()
    # A view that is still held stays good.
    np.testing.assert_array_equal(data.view(np.float32), weights["output_norm.weight"])
    with pytest.raises(ClosedError, match=r"model\.gguf: the file was closed, output_norm\.weight"):
        file.data("output_norm.weight")
    file.release("output_norm.weight")
    assert file.metadata["general.name"] == "tiny"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")
def test_release_gives_pages_back(path: Path) -> None:
    write_tiny_gguf(path, hidden_size=512, n_layers=1, intermediate_size=512)

    def resident() -> int:
        lines = Path("/proc/self/smaps").read_text().splitlines()
        at = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
        rss = next(line for line in lines[at:] if line.startswith("Rss:"))
        return int(rss.split()[1]) * 1024

    with GgufFile.open(path) as file:
        info = file.tensors["blk.0.ffn_up.weight"]
        total = int(file.data(info.name).sum())
        before = resident()
        file.release(info.name)
        assert before - resident() >= info.n_bytes - 2 * 65536
        assert int(file.data(info.name).sum()) == total


def test_alignment(path: Path) -> None:
    metadata = tiny_metadata()
    weights = write_gguf(path, metadata, tiny_tensors(metadata), alignment=4096)
    with GgufFile.open(path) as file:
        assert all(info.offset % 4096 == 0 for info in file.tensors.values())
        found = file.data("blk.1.attn_q.bias").view(np.float32)
        np.testing.assert_array_equal(found, weights["blk.1.attn_q.bias"])


def _empty(path: Path) -> None:
    path.touch()


def _checkpoint(path: Path) -> None:
    path.mkdir()
    (path / "config.json").touch()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "is a folder, expected a GGUF file"),
        (
            _checkpoint,
            "is a folder, expected a GGUF file; convert it with `edgeqwen quantize`",
        ),
        (_empty, "is empty, expected a GGUF file; download it again"),
        pytest.param(
            _pipe,
            "is no regular file, expected a GGUF file",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here"),
        ),
    ],
)
def test_paths_that_are_no_file(path: Path, make: Callable[[Path], None], message: str) -> None:
    make(path)
    with pytest.raises(FileFormatError) as error:
        GgufFile.open(path)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (PermissionError(13, "Permission denied"), "permission denied; make the file readable"),
        (OSError(5, "Input/output error"), "can't be opened: Input/output error"),
    ],
)
def test_files_that_cannot_be_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, reason: OSError, message: str
) -> None:
    def fail(*_: object) -> None:
        raise reason

    write_tiny_gguf(path)
    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(FileFormatError) as error:
        GgufFile.open(path)
    assert str(error.value) == f"{path}: {message}"


def test_path_with_a_null() -> None:
    with pytest.raises(FileFormatError, match="embedded null"):
        GgufFile.open("a\0b")


def test_opening_imports_little() -> None:
    code = "import sys, edgeqwen.gguf_file; print('numba' in sys.modules, 'gguf' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
