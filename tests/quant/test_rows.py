"""Rows of any type become rows of another, and what can't is named by tensor and row."""

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.checkpoint import SourceTensor
from edgeqwen.quant.errors import ErrorSums
from edgeqwen.quant.gguf_checkpoint import can_dequantize
from edgeqwen.quant.rows import convert_rows

Bytes = npt.NDArray[np.uint8]
FLOATS = (GgmlType.F32, GgmlType.F16, GgmlType.BF16)
TARGETS = (*FLOATS, GgmlType.Q8_0, GgmlType.Q4_0)


def tensor(type: GgmlType, shape: tuple[int, ...]) -> SourceTensor:
    return SourceTensor("x", type, shape, "folder: x")


def as_type(type: GgmlType, x: npt.NDArray[np.float32]) -> Bytes:
    found = gguf.quants.quantize(x, gguf.GGMLQuantizationType(int(type)))
    return np.ascontiguousarray(found).view(np.uint8).reshape(-1)


def as_floats(type: GgmlType, data: Bytes) -> npt.NDArray[np.float32]:
    rows = data.reshape(-1, type.type_size)
    found = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(int(type)))
    return np.asarray(found, np.float32).reshape(-1)


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("columns", [96, 896])
@pytest.mark.parametrize("offset", [0, 1])
def test_floats(source: GgmlType, target: GgmlType, columns: int, offset: int) -> None:
    # More than one chunk, and a last one that is smaller.
    n_rows = (1 << 16) // columns * 2 + 3
    x = np.random.default_rng(0).standard_normal((n_rows, columns), np.float32)
    data = as_type(source, x)
    # A mapped file: read-only, and anywhere in memory.
    room = np.zeros(len(data) + 16, np.uint8)
    room[offset : offset + len(data)] = data
    room.flags.writeable = False
    found = convert_rows(tensor(source, x.shape), 0, room[offset : offset + len(data)], target)
    widened = as_floats(source, data).reshape(x.shape)
    assert (found == as_type(target, widened)).all()


@pytest.mark.parametrize("name", [t.name for t in GgmlType if can_dequantize(t)])
def test_every_type_that_gguf_can_read(name: str) -> None:
    source = GgmlType[name]
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, source.n_bytes((3, 512)), np.uint8)
    x = as_floats_quietly(source, data)
    if not np.isfinite(x).all():
        # Random bytes hold scales that aren't finite: make every float16 a small one.
        data &= 0x3B
        x = as_floats_quietly(source, data)
    found = convert_rows(tensor(source, (3, 512)), 0, data, GgmlType.F32)
    assert (found.view(np.float32) == x).all()


def as_floats_quietly(type: GgmlType, data: Bytes) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return as_floats(type, data)


def test_types_that_can_not_be_read() -> None:
    assert not can_dequantize(GgmlType.Q8_K)
    assert not can_dequantize(GgmlType.I32)


@pytest.mark.parametrize("type", [GgmlType.Q8_0, GgmlType.Q4_0])
def test_blocks_of_the_same_type_are_copied(type: GgmlType) -> None:
    data = as_type(type, np.random.default_rng(0).standard_normal((4, 64), np.float32))
    assert (convert_rows(tensor(type, (4, 64)), 0, data, type) == data).all()
    data[3 * len(data) // 4 + 1] = 0x7C
    with pytest.raises(FileFormatError, match="folder: x: row 13 holds NaN or infinite scales"):
        convert_rows(tensor(type, (4, 64)), 10, data, type)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(target: GgmlType, value: float) -> None:
    x = np.zeros((300, 512), np.float32)
    x[200, 7:9] = value
    with pytest.raises(FileFormatError) as error:
        convert_rows(tensor(GgmlType.F32, x.shape), 1000, as_type(GgmlType.F32, x), target)
    assert str(error.value) == (
        "folder: x: row 1200 holds 2 weights that are NaN or infinite; the checkpoint is damaged"
    )


@pytest.mark.parametrize("target", [GgmlType.F16, GgmlType.Q8_0, GgmlType.Q4_0])
def test_weights_that_are_too_large(target: GgmlType) -> None:
    x = np.zeros((300, 512), np.float32)
    x[250, 100] = -1e9
    with pytest.raises(UnsupportedError) as error:
        convert_rows(tensor(GgmlType.BF16, x.shape), 0, as_type(GgmlType.BF16, x), target)
    assert str(error.value) == (
        "folder: x: row 250 holds weights up to 9.982e+08, too large for "
        f"{target.name}; choose bf16 or f32"
    )


def test_errors_of_rows_are_measured_where_they_stand() -> None:
    x = np.random.default_rng(0).standard_normal((300, 512), np.float32)
    x[200, 64:96] *= 100
    data = as_type(GgmlType.F32, x)
    errors = ErrorSums()
    made = convert_rows(
        tensor(GgmlType.F32, x.shape), 1000, data, GgmlType.Q8_0, np.ones(512, np.float32), errors
    )
    found = errors.result()
    difference = as_floats(GgmlType.Q8_0, made) - x.reshape(-1)
    assert found.n == x.size
    assert found.rmse == pytest.approx(np.sqrt(np.mean(difference.astype(np.float64) ** 2)))
    assert found.weighted_relative_rmse == pytest.approx(found.relative_rmse)
    assert found.worst is not None
    assert (found.worst.row, found.worst.column) == (1200, 64)


def test_copied_blocks_are_exact() -> None:
    data = as_type(GgmlType.Q8_0, np.ones((4, 64), np.float32))
    errors = ErrorSums()
    convert_rows(tensor(GgmlType.Q8_0, (4, 64)), 0, data, GgmlType.Q8_0, None, errors)
    assert (errors.result().n, errors.result().rmse) == (256, 0)
