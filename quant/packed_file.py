"""pack(): a GGUF file whose matrices lie in it as kernels read them."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.fingerprint import weights_digest
from edgeqwen.config import ModelConfig
from edgeqwen.errors import UnsupportedError
from edgeqwen.formats import Format
from edgeqwen.formats.base import TILE_ROWS
from edgeqwen.formats.packing import pack_rows
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_arrays import NumberArray
from edgeqwen.gguf_file import GgufFile, TensorInfo
from edgeqwen.gguf_packed import packed_metadata
from edgeqwen.mapped_file import forget
from edgeqwen.model.weights import format_in_memory, matrix_groups
from edgeqwen.quant.gguf_writer import GgufWriter, PlannedTensor
from edgeqwen.quant.output_check import check_outputs
from edgeqwen.quant.threads import thread_count

Progress = Callable[[int, int], None]

# Bytes of tiles that a thread makes at a time.
_TASK_BYTES = 4 << 20
# What tells how the source stores its tensors.
_LEFT_OUT = ("general.alignment",)
_LEFT_OUT_PREFIXES = ("split.",)


def pack(
    source: str | Path,
    output: str | Path,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Packs a GGUF file for instant loading: its weights are then mapped and used in place.

    No weight changes. Other programs can't run a packed file, and a later version of edgeqwen may
    ask for packing anew, so keep the source. ``n_threads`` is as many as the process may use
    unless given; ``progress(done, total)`` is called with bytes of the output, which appears, or
    replaces what stood there, only when it is complete. Returns its size in bytes.

    Raises OptionError for arguments that make no sense, FileFormatError for a source that is
    damaged, UnsupportedError for one that can't be run or is packed, EdgeqwenError if the output
    can't be written.
    """
    source, output, threads = Path(source), Path(output), thread_count(n_threads)
    with GgufFile.open(source) as file:
        check_outputs((output,), [(path, "a file of the source") for path in file.paths])
        if file.is_packed:
            raise UnsupportedError(f"{source}: is packed already")
        plan = _Plan(file, threads)
        with GgufWriter(output, plan.metadata, plan.tensors) as writer:
            _write(plan, writer, threads, progress or _no_progress)
        forget(output)
        return writer.size


def _as_it_was(value: Any) -> Any:
    """Returns a value of metadata as something that is written as it was read."""
    if isinstance(value, NumberArray):
        return value.array
    if isinstance(value, float) and not _is_float32(value):
        return np.float64(value)
    return value


def _is_float32(value: float) -> bool:
    with np.errstate(over="ignore"):
        return math.isnan(value) or float(np.float32(value)) == value


class _Plan:
    """The packed file to be: its metadata, and its tensors in their order."""

    def __init__(self, file: GgufFile, n_threads: int) -> None:
        self.file = file
        config = file.config()
        # Those of one operation side by side, for kernels to take them as one matrix.
        names = [name for group in matrix_groups(config) for name in group]
        self.formats = {name: _format(file, name, config) for name in names}
        self.vectors = [name for name in config.expected_tensors() if name not in self.formats]
        matrices = [file.tensor(name) for name in names]
        copied = {
            key: _as_it_was(value)
            for key, value in file.metadata.items()
            if key not in _LEFT_OUT and not key.startswith(_LEFT_OUT_PREFIXES)
        }
        layouts = [self.formats[name].name for name in names]
        self.metadata = copied | packed_metadata(matrices, layouts, weights_digest(file, n_threads))
        self.tensors = [
            PlannedTensor(t.name, GgmlType.I8, (_sizes(t, self.formats[t.name]).n_bytes,))
            for t in matrices
        ]
        for name in self.vectors:
            vector = file.tensor(name)
            self.tensors.append(PlannedTensor(name, vector.type, vector.shape))

    def tasks(self, writer: GgufWriter) -> Iterator["_Task"]:
        """Yields all packing, in the order of the file, with the places of what comes of it."""
        for name, format_ in self.formats.items():
            tensor, data = self.file.tensor(name), self.file.data(name)
            sizes = _sizes(tensor, format_)
            start = writer.take(sizes.n_bytes)
            writer.end_tensor()
            tiles = start + sizes.n_tiles * sizes.apart_row
            step = max(1, _TASK_BYTES // sizes.row)
            for first in range(0, sizes.n_tiles, step):
                last = min(first + step, sizes.n_tiles)
                yield _Task(
                    format_,
                    data,
                    tensor.shape[0],
                    first,
                    last,
                    (last - first) * sizes.apart_row,
                    (last - first) * sizes.row,
                    # What lies apart is in reverse order.
                    start + (sizes.n_tiles - last) * sizes.apart_row,
                    tiles + first * sizes.row,
                )


@dataclass(frozen=True, slots=True)
class _Task:
    """Rows of tiles [first, last) of a matrix: how many bytes they take, and where, in the file.

    Of what the format keeps apart, and of the tiles themselves.
    """

    format: Format
    data: NDArray[np.uint8]
    n_rows: int
    first: int
    last: int
    apart_bytes: int
    tile_bytes: int
    apart_at: int
    tiles_at: int


def _write(plan: _Plan, writer: GgufWriter, n_threads: int, progress: Progress) -> None:
    def convert(task: _Task) -> None:
        apart, tiles = np.empty(task.apart_bytes, np.uint8), np.empty(task.tile_bytes, np.uint8)
        pack_rows(task.format, task.data, task.n_rows, task.first, task.last, apart, tiles)
        writer.write_at(task.apart_at, apart.data)
        writer.write_at(task.tiles_at, tiles.data)

    pending: deque[tuple[int, Future[None]]] = deque()

    def finish_first() -> None:
        end, result = pending.popleft()
        result.result()
        progress(end, writer.size)

    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="edgeqwen-pack")
    try:
        for task in plan.tasks(writer):
            end = task.tiles_at + task.tile_bytes
            pending.append((end, pool.submit(convert, task)))
            if len(pending) >= 2 * n_threads:
                finish_first()
        while pending:
            finish_first()
    finally:
        pool.shutdown(cancel_futures=True)
    for name in plan.vectors:
        writer.write(plan.file.data(name).data)
        writer.end_tensor()
    progress(writer.size, writer.size)


def _format(file: GgufFile, name: str, config: ModelConfig) -> Format:
    tensor = file.tensor(name)
    found = format_in_memory(tensor, config)
    if found is None or tensor.shape[1] % found.tile_columns:
        raise UnsupportedError(
            f"{file.path}: {name} is {tensor.type.name} {tensor.shape}, which can't be run, and so "
            "not packed; convert the original checkpoint (edgeqwen quantize)"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Rows of tiles of a matrix, and the bytes of one, and of what the format keeps apart of it."""

    n_tiles: int
    row: int
    apart_row: int

    @property
    def n_bytes(self) -> int:
        return self.n_tiles * (self.row + self.apart_row)


def _sizes(tensor: TensorInfo, format_: Format) -> _Sizes:
    n_rows, n_columns = tensor.shape
    row_tiles = n_columns // format_.tile_columns
    return _Sizes(
        -(-n_rows // TILE_ROWS),
        row_tiles * format_.tile_bytes,
        row_tiles * format_.apart_tile_bytes,
    )


def _no_progress(done: int, total: int) -> None:
    pass
