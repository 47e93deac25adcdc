"""ErrorSums: the figures of plain numpy, however a tensor's rows are cut."""

import math
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant import HISTOGRAM_EDGES, TensorErrors, convert, errors, quantize
from edgeqwen.quant.encode import encode
from edgeqwen.quant.errors import ErrorSums
from tests.hf_checkpoints import write_checkpoint

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q6_K", "Q4_K", "Q2_K", "IQ4_XS")


def tensor(n_rows: int = 24, columns: int = 512) -> Floats:
    """Returns weights of several sizes, so that blocks and columns differ."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.standard_normal((n_rows, 1)) + rng.standard_normal(columns))
    return (rng.standard_normal((n_rows, columns)) * sizes / 50).astype(np.float32)


def encoded(type: GgmlType, weights: Floats) -> Bytes:
    out = np.empty(type.n_bytes(weights.shape), np.uint8)
    assert encode(type, weights, out)
    return out


def decoded(type: GgmlType, data: Bytes, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    blocks = data.reshape(-1, type.type_size)
    found = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(type)))
    return np.asarray(found, np.float32).reshape(shape).astype(np.float64)


def measured(type: GgmlType, weights: Floats, importance: Floats | None = None) -> TensorErrors:
    sums = ErrorSums()
    sums.add(0, weights, encoded(type, weights), type, importance)
    return sums.result()


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("chunk", [1 << 16, 1100])
def test_the_figures_are_those_of_numpy(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "_CHUNK_WEIGHTS", chunk)
    type, weights = GgmlType[name], tensor()
    importance = np.random.default_rng(1).random(weights.shape[1], np.float32)
    found = measured(type, weights, importance)
    w = weights.astype(np.float64)
    written = decoded(type, encoded(type, weights), weights.shape)
    error = written - w
    rms, rmse = math.sqrt((w**2).mean()), math.sqrt((error**2).mean())
    assert found.n == w.size
    assert found.rms == pytest.approx(rms, rel=1e-12)
    assert found.rmse == pytest.approx(rmse, rel=1e-12)
    assert found.relative_rmse == pytest.approx(rmse / rms, rel=1e-12)
    assert found.max_error == pytest.approx(np.abs(error).max(), rel=1e-12)
    cosine = (w * written).sum() / math.sqrt((w**2).sum() * (written**2).sum())
    assert found.cosine == pytest.approx(cosine, abs=1e-14)
    weighted = math.sqrt((error**2 * importance).sum() / (w**2 * importance).sum())
    assert found.weighted_relative_rmse == pytest.approx(weighted, rel=1e-12)
    if name == "F32":
        assert (found.rmse, found.cosine, found.worst) == (0, 1, None)
        return
    block = type.block_size if type.block_size > 1 else 32
    blocks = np.sqrt((error.reshape(len(w), -1, block) ** 2).mean(axis=2))
    row, place = np.unravel_index(blocks.argmax(), blocks.shape)
    assert found.worst is not None
    assert (found.worst.row, found.worst.column) == (row, place * block)
    assert found.worst.rmse == pytest.approx(blocks.max(), rel=1e-12)
    assert found.worst.relative_rmse == pytest.approx(blocks.max() / rms, rel=1e-12)


@pytest.mark.parametrize("name", ["F32", "BF16", "Q8_0", "Q4_K"])
def test_the_histogram_is_true_to_3_per_cent(name: str) -> None:
    type, weights = GgmlType[name], tensor()
    found = measured(type, weights)
    error = np.abs(decoded(type, encoded(type, weights), weights.shape) - weights)
    assert found.rms is not None
    assert len(found.histogram) == len(HISTOGRAM_EDGES) + 1
    assert sum(found.histogram) == error.size
    below = np.cumsum(found.histogram)[:-1]
    for edge, n in zip(HISTOGRAM_EDGES, below, strict=True):
        low, high = ((error < edge * found.rms * part).sum() for part in (1 / 1.03, 1.03))
        assert low <= n <= high


def test_errors_of_every_size_have_a_bin() -> None:
    weights = np.zeros((1, 32), np.float32)
    weights[0, :4] = 1, 1e-30, 1e-44, -1e-10
    sums = ErrorSums()
    sums.add(0, weights, np.zeros(128, np.uint8), GgmlType.F32)
    found = sums.result()
    assert found.histogram[0] == 31  # all but the first are next to nothing
    assert found.histogram[-1] == 1
    assert (found.relative_rmse, found.cosine) == (1, 0)


def test_nothing_but_zeros() -> None:
    found = measured(GgmlType.Q4_K, np.zeros((2, 256), np.float32))
    assert (found.rms, found.rmse, found.relative_rmse, found.cosine) == (0, 0, 0, 1)
    assert found.histogram[0] == 512
    sums = ErrorSums()
    sums.add(0, np.zeros((1, 32), np.float32), np.ones(32, np.float32).view(np.uint8), GgmlType.F32)
    assert (sums.result().relative_rmse, sums.result().cosine) == (math.inf, 0)
    assert sums.result().histogram[-1] == 32


def test_columns_that_never_were_active_weigh_nothing() -> None:
    weights = tensor()
    importance = np.zeros(weights.shape[1], np.float32)
    assert measured(GgmlType.Q4_0, weights, importance).weighted_relative_rmse is None
    importance[96:128] = 7
    only = measured(GgmlType.Q4_0, np.ascontiguousarray(weights[:, 96:128]))
    found = measured(GgmlType.Q4_0, weights, importance)
    assert found.weighted_relative_rmse == pytest.approx(only.relative_rmse, rel=1e-12)


def test_parts_are_merged_in_their_order() -> None:
    type, weights = GgmlType.Q8_0, tensor()
    weights[[3, 20]] = weights[20] * 30  # the worst row stands twice: the first of them counts
    whole = measured(type, weights)
    merged = ErrorSums()
    for first in range(0, len(weights), 5):
        part = ErrorSums()
        rows = weights[first : first + 5]
        part.add(first, rows, encoded(type, rows), type)
        merged.merge(part)
    found = merged.result()
    assert found.worst == whole.worst
    assert found.worst is not None
    assert found.worst.row == 3
    assert (found.n, found.histogram, found.max_error) == (
        whole.n,
        whole.histogram,
        whole.max_error,
    )
    assert found.rmse == pytest.approx(whole.rmse, rel=1e-14)


def test_what_is_copied_is_exact() -> None:
    part, whole = ErrorSums(), ErrorSums()
    part.add_copied(1000)
    whole.merge(part)
    found = whole.result()
    assert (found.n, found.rms, found.rmse, found.cosine) == (1000, None, 0, 1)
    assert (found.worst, found.histogram[0], sum(found.histogram)) == (None, 1000, 1000)


def test_any_number_of_threads_gives_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_TASK_WEIGHTS", 1 << 10)
    folder, path = write_checkpoint(tmp_path / "a"), tmp_path / "x.gguf"
    one, many = (
        quantize(folder, path, "q4_0", measure_errors=True, n_threads=n).tensors for n in (1, 5)
    )
    assert one == many
    assert all(tensor.errors is not None for tensor in one)
    assert {t.name for t in one if t.errors and t.errors.rmse} == {
        t.name for t in one if len(t.shape) > 1
    }


def test_errors_are_those_of_the_file(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", hidden_size=128, intermediate_size=288)
    exact, path = tmp_path / "exact.gguf", tmp_path / "x.gguf"
    quantize(folder, exact, "f32", pad_ffn=True)
    report = quantize(folder, path, "q4_k_m", pad_ffn=True, measure_errors=True)
    weights, written = (
        {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
        for reader in (gguf.GGUFReader(exact), gguf.GGUFReader(path))
    )
    for t in report.tensors:
        assert t.errors is not None
        assert t.errors.n == t.n_weights == weights[t.name].size
        error = written[t.name].astype(np.float64) - weights[t.name]
        assert t.errors.rmse == pytest.approx(math.sqrt((error**2).mean()), rel=1e-12)
    down = next(t for t in report.tensors if t.name == "blk.0.ffn_down.weight")
    assert (down.shape, down.type) == ((128, 512), GgmlType.Q4_K)


def test_a_file_of_the_same_type_is_exact(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    quantize(folder, tmp_path / "one.gguf", "q8_0")
    same = quantize(tmp_path / "one.gguf", tmp_path / "two.gguf", "q8_0", measure_errors=True)
    assert all(t.errors is not None and t.errors.rmse == 0 for t in same.tensors)


def test_nothing_is_measured_unless_asked_for(tmp_path: Path) -> None:
    report = quantize(write_checkpoint(tmp_path / "a"), tmp_path / "x.gguf")
    assert {tensor.errors for tensor in report.tensors} == {None}
