"""The safetensors reader agrees with the format's own library and refuses everything else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeqwen.errors import EdgeqwenError, FileFormatError, UnsupportedError
from edgeqwen.quant.safetensors_file import SafetensorsFile


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), span: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": span}


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors: dict[str, npt.NDArray[Any]] = {
        "a": rng.standard_normal((3, 5)).astype(np.float32),
        "b.c": rng.standard_normal(7).astype(np.float16),
        "ünï": rng.integers(0, 9, (2, 2, 2)),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(2.5, np.float32),
    }
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})
    with SafetensorsFile(path) as file:
        assert set(file.tensors) == set(tensors)
        for name, expected in tensors.items():
            assert file.tensors[name].shape == expected.shape
            data = file.data(name)
            assert not data.flags.writeable
            assert data.tobytes() == expected.tobytes()
            file.release(name, 0, len(data))
            assert data.tobytes() == expected.tobytes()


def test_views_outlive_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry()}, b"\1\2\3\4\5\6\7\10")
    with SafetensorsFile(path) as file:
        view = file.data("a")
    assert view.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry()}, b"1234567", "ends at byte 77, but the file has 76: truncated"),
        ({"a": entry()}, b"123456789", "the tensors end at byte 77, but the file has 78"),
        ({"a": entry(span=(1, 9))}, b"123456789", "what stands before it ends at 69: it leaves a"),
        (
            {"a": entry(), "b": entry(span=(4, 12))},
            b"123456789012",
            "b: starts at byte 135, but what stands before it ends at 139: it overlaps it",
        ),
        ({"a": entry(span=(0, 4))}, b"1234", "F32 of shape [2] takes 8 bytes, but data_offsets"),
        ({"a": entry(span=(8, 0))}, b"12345678", "data_offsets is [8, 0], expected where its"),
        ({"a": entry(span=(0, 1 << 64))}, b"", "is [0, an integer of 65 bits], expected where"),
        ({"a": entry(span="08")}, b"12345678", "data_offsets is '08', expected where"),
        ({"a": entry(shape=(-2,))}, b"12345678", "shape is [-2], expected up to 8 whole numbers"),
        ({"a": entry(shape=(True, 2))}, b"12345678", "shape is [True, 2], expected up to 8 whole"),
        ({"a": entry(shape=(1,) * 9)}, b"1234", "shape is a list of 9, expected up to 8 whole"),
        ({"a": entry(shape=(1 << 62,) * 8)}, b"12345678", "takes an integer of 499 bits bytes"),
        ({"a": entry(dtype=3)}, b"12345678", "a: dtype is 3, expected a string"),
        ({"a": 7}, b"", "a: described by 7, expected an object"),
        ([1], b"", "header: holds a list of 1, expected a JSON object"),
        (b'{"a":', b"", "header: not JSON (Expecting value at line 1, column 6); the file may be"),
        (b'{"a": {}, "a": {}}', b"", "header: the key 'a' stands twice"),
        (b"\xff\xfe", b"", "header: not UTF-8 text (byte 0)"),
        (b"[" * 100_000, b"", "header: JSON that nests too deep or holds a huge number"),
        (b'{"a":' + b"9" * 5000 + b"}", b"", "header: JSON that nests too deep or holds a huge"),
    ],
)
def test_lying_headers(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(FileFormatError) as error:
        SafetensorsFile(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes is too short for a safetensors file"),
        (b"1234567", "7 bytes is too short for a safetensors file"),
        (b"\xff" * 8, "the header would take 18446744073709551615 bytes, but the file has 8"),
        (b"\x09" + bytes(7) + b'{"a": 1}', "the header would take 9 bytes, but the file has 16"),
        (b"GGUF" + bytes(40), "it is no safetensors file but a GGUF file"),
        (b"PK\x03\x04" + bytes(40), "it is no safetensors file but a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as error:
        SafetensorsFile(path)
    assert message in str(error.value)


def test_header_larger_than_any_model_needs(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as file:
        file.write((9 << 20).to_bytes(8, "little"))
        file.truncate(10 << 20)
    with pytest.raises(FileFormatError, match="headers are at most 8388608"):
        SafetensorsFile(path)


def test_unknown_dtype(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry(dtype="F4")}, b"1")
    with pytest.raises(UnsupportedError, match="a: dtype 'F4' isn't known to this version"):
        SafetensorsFile(path)


def test_places_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="is no regular file"):
        SafetensorsFile(tmp_path)
    with pytest.raises(FileFormatError, match="can't be read"):
        SafetensorsFile(tmp_path / "absent.safetensors")


def _sample() -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "a": entry("F32", [2, 3], [0, 24]),
        "b": entry("BF16", [4], [24, 32]),
        "c": entry("I64", [], [32, 40]),
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(range(40))


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutations(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(_sample())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        change = data.draw(st.sampled_from(["flip", "set", "cut", "insert", "number"]))
        if change == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "set":
            content[at] = data.draw(st.sampled_from(b'09-[]{},:"\\eE.\x00\xff'))
        elif change == "cut":
            del content[max(at, 1) :]
        elif change == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            digits = data.draw(st.sampled_from([b"0", b"-1", b"1e9", b"99999999999999999999"]))
            content[at : at + 1] = digits
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    try:
        with SafetensorsFile(path) as file:
            for name, tensor in file.tensors.items():
                assert len(file.data(name)) == tensor.n_bytes
                assert tensor.offset + tensor.n_bytes <= len(content)
    except EdgeqwenError as error:
        # Most mutations are errors, but not all.
        assert str(path) in str(error)  # noqa: PT017
