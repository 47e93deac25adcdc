"""What the writer writes is read back, by the gguf package and by edgeqwen, as it was."""

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeqwen.errors import EdgeqwenError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant.gguf_values import MetadataValue
from edgeqwen.quant.gguf_writer import GgufWriter, PlannedTensor

T = gguf.GGUFValueType
VALUES: dict[str, tuple[MetadataValue, list[gguf.GGUFValueType]]] = {
    "general.architecture": ("qwen2", [T.STRING]),
    "text": ("héllo\n猫", [T.STRING]),
    "empty.text": ("", [T.STRING]),
    "yes": (True, [T.BOOL]),
    "no": (False, [T.BOOL]),
    "small": (7, [T.UINT32]),
    "largest.u32": ((1 << 32) - 1, [T.UINT32]),
    "u64": (1 << 32, [T.UINT64]),
    "largest.u64": ((1 << 64) - 1, [T.UINT64]),
    "i32": (-5, [T.INT32]),
    "i64": (-(1 << 40), [T.INT64]),
    "general.sampling.top_k": (20, [T.INT32]),
    "real": (0.5, [T.FLOAT32]),
    "strings": (["a", "", "ü"], [T.ARRAY, T.STRING]),
    "numbers": ([1, -2, 3], [T.ARRAY, T.INT32]),
    "u8": (np.array([1, 2], np.uint8), [T.ARRAY, T.UINT8]),
    "f32": (np.array([1.5, -2.25], np.float32), [T.ARRAY, T.FLOAT32]),
    "f64": (np.array([1e300]), [T.ARRAY, T.FLOAT64]),
    "u16": (np.array([1, 2], np.uint16), [T.ARRAY, T.UINT16]),
    "flags": (np.array([True, False]), [T.ARRAY, T.BOOL]),
}
TENSORS = [
    PlannedTensor("a", GgmlType.F32, (3,)),
    PlannedTensor("b", GgmlType.Q4_0, (5, 64)),
    PlannedTensor("c", GgmlType.F16, (2, 7)),
    PlannedTensor("d", GgmlType.Q8_0, (1, 32)),
]


def write(path: Path) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    data = {tensor.name: rng.bytes(tensor.n_bytes) for tensor in TENSORS}
    with GgufWriter(path, {key: value for key, (value, _) in VALUES.items()}, TENSORS) as writer:
        for tensor in TENSORS:
            half = tensor.n_bytes // 2
            writer.write(data[tensor.name][:half])
            writer.write(data[tensor.name][half:])
            writer.end_tensor()
        assert writer.position == writer.size
    assert path.stat().st_size == writer.size
    return data


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_read_by_the_gguf_package(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    data = write(path)
    reader = gguf.GGUFReader(path)
    for key, (value, types) in VALUES.items():
        field = reader.fields[key]
        assert field.types == types, key
        assert field.contents() == plain(value), key
    for tensor, found in zip(TENSORS, reader.tensors, strict=True):
        assert found.name == tensor.name
        assert tuple(reversed(found.shape.tolist())) == tensor.shape
        assert int(found.tensor_type) == tensor.type
        assert found.data_offset % 32 == 0
        assert found.data.tobytes() == data[tensor.name]


def test_read_by_edgeqwen(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    data = write(path)
    with GgufFile.open(path) as file:
        assert file.version == 3
        assert file.metadata == {key: plain(value) for key, (value, _) in VALUES.items()}
        for tensor in TENSORS:
            found = file.tensors[tensor.name]
            assert (found.type, found.shape) == (tensor.type, tensor.shape)
            assert file.data(tensor.name).tobytes() == data[tensor.name]


def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.gguf"
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 8, 1000))
    with pytest.raises(EdgeqwenError) as error:
        write(path)
    assert "needs 0.0 MB, but only 0.0 MB are free in" in str(error.value)
    assert "make room or choose another folder" in str(error.value)
    assert not list(tmp_path.iterdir())
