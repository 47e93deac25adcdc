"""quantize(): from a checkpoint to a GGUF file, chunk by chunk, on all threads."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.atomic_file import check_writable
from edgeqwen.quant.checkpoint import Checkpoint, SourceTensor, open_checkpoint
from edgeqwen.quant.gguf_writer import GgufWriter, PlannedTensor
from edgeqwen.quant.recipe import Recipe, recipe_named
from edgeqwen.quant.report import QuantizeReport, TensorReport

Progress = Callable[[int, int], None]

# What a thread converts at a time: a few of these are in memory, whatever the model's size.
_TASK_WEIGHTS = 1 << 19
_QUANTIZATION_VERSION = 2  # of the block formats, as GGUF counts them


def quantize(
    source: str | Path,
    output: str | Path,
    type: str = "q4_0",
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> QuantizeReport:
    """Converts a Hugging Face folder or a GGUF file to a GGUF file of another type.

    ``type`` is one of ``edgeqwen.quant.TYPES``; ``n_threads`` is as many as the process may use
    unless given; ``progress(done, total)`` is called with bytes of the output. The output appears,
    or replaces what stood there, only when it is complete. Memory holds the vocabulary and a few
    MB per thread, never a whole tensor.

    Raises OptionError for arguments that make no sense, FileFormatError for a source that is
    damaged or incomplete, UnsupportedError for one that can't be converted, EdgeqwenError if the
    output can't be written.
    """
    started = time.perf_counter()
    source, output = Path(source), Path(output)
    recipe = recipe_named(type)
    threads = _thread_count(n_threads)
    check_writable(output)
    checkpoint = open_checkpoint(source)
    try:
        _check_apart(output, checkpoint)
        tensors = _plan(checkpoint, recipe)
        n_weights = sum(int(np.prod(tensor.shape)) for tensor in tensors)
        metadata = {
            **checkpoint.metadata,
            "general.size_label": _size_label(n_weights),
            "general.file_type": recipe.file_type,
            "general.quantization_version": _QUANTIZATION_VERSION,
        }
        # People read listings from the top: what the file is comes before its vocabulary.
        keys = sorted(metadata, key=lambda key: not key.startswith("general."))
        metadata = {key: metadata[key] for key in keys}
        planned = [PlannedTensor(tensor.name, tensor.type, tensor.shape) for tensor in tensors]
        with GgufWriter(output, metadata, planned) as writer:
            _convert_all(checkpoint, tensors, writer, threads, progress or _no_progress)
    finally:
        checkpoint.close()
    return QuantizeReport(
        source=source,
        output=output,
        type=recipe.name,
        tensors=tensors,
        n_bytes=writer.size,
        n_weights=n_weights,
        seconds=time.perf_counter() - started,
        notes=(*checkpoint.notes, *_fallback_notes(tensors, recipe, checkpoint)),
    )


def _thread_count(n_threads: int | None) -> int:
    if n_threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if isinstance(n_threads, bool) or not isinstance(n_threads, int) or not 1 <= n_threads <= 1024:
        raise OptionError(f"n_threads is {n_threads!r}, expected a whole number from 1 to 1024")
    return n_threads


def _check_apart(output: Path, checkpoint: Checkpoint) -> None:
    """Refuses to write over what is being read."""
    if output.exists():
        for file in checkpoint.files:
            if file.exists() and output.samefile(file):
                raise OptionError(f"{output}: is a file of the source; choose another output")


def _plan(checkpoint: Checkpoint, recipe: Recipe) -> tuple[TensorReport, ...]:
    plan = []
    for tensor in checkpoint.tensors:
        type = recipe.type_of(tensor.name, tensor.shape, checkpoint.config)
        n_bytes = type.n_bytes(tensor.shape)
        plan.append(TensorReport(tensor.name, tensor.shape, tensor.type, type, n_bytes))
    return tuple(plan)


@dataclass(frozen=True, slots=True)
class _Task:
    """Some rows of a tensor; [start, stop) are their bytes in the source."""

    tensor: SourceTensor
    type: GgmlType
    first_row: int
    start: int
    stop: int
    ends_tensor: bool


def _tasks(checkpoint: Checkpoint, tensors: tuple[TensorReport, ...]) -> Iterator[_Task]:
    for source, target in zip(checkpoint.tensors, tensors, strict=True):
        columns = source.shape[-1]
        n_rows = int(np.prod(source.shape)) // columns
        row_bytes = source.type.n_bytes((columns,))
        step = max(1, _TASK_WEIGHTS // columns)
        for row in range(0, n_rows, step):
            stop = min(row + step, n_rows)
            yield _Task(source, target.type, row, row * row_bytes, stop * row_bytes, stop == n_rows)


def _convert_all(
    checkpoint: Checkpoint,
    tensors: tuple[TensorReport, ...],
    writer: GgufWriter,
    n_threads: int,
    progress: Progress,
) -> None:
    """Converts tasks on all threads and writes the results in order, as they come."""
    # Here and not above: importing the encoders imports numba.
    from edgeqwen.quant.rows import convert_rows

    def convert(task: _Task) -> npt.NDArray[np.uint8]:
        rows = checkpoint.data(task.tensor.name)[task.start : task.stop]
        return convert_rows(task.tensor, task.first_row, rows, task.type)

    progress(writer.position, writer.size)
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="edgeqwen-quantize")
    pending: deque[tuple[_Task, Future[npt.NDArray[np.uint8]]]] = deque()

    def write_first() -> None:
        task, result = pending.popleft()
        writer.write(result.result().data)
        checkpoint.release(task.tensor.name, task.start, task.stop)
        if task.ends_tensor:
            writer.end_tensor()
        progress(writer.position, writer.size)

    try:
        for task in _tasks(checkpoint, tensors):
            pending.append((task, pool.submit(convert, task)))
            # Two more than threads: one being written, one waiting for whoever is done first.
            if len(pending) >= n_threads + 2:
                write_first()
        while pending:
            write_first()
    finally:
        pool.shutdown(cancel_futures=True)


def _fallback_notes(
    tensors: tuple[TensorReport, ...], recipe: Recipe, checkpoint: Checkpoint
) -> list[str]:
    """Says which matrices have rows that don't fill whole blocks."""
    found = [
        tensor
        for tensor in tensors
        if len(tensor.shape) > 1 and tensor.type != recipe.choose(tensor.name, checkpoint.config)
    ]
    if not found:
        return []
    first = found[0]
    meant = recipe.choose(first.name, checkpoint.config)
    return [
        f"{len(found)} matrices are not of the type meant for them: {first.name} is "
        f"{first.type.name}, because its {first.shape[-1]} columns are not a multiple of "
        f"{meant.block_size}, which {meant.name} needs"
    ]


def _size_label(n_weights: int) -> str:
    """Returns a number of weights as model names have it: 494M, 1.5B, 73B."""
    scales = ((10**12, "T"), (10**9, "B"), (10**6, "M"))
    scale, letter = next((found for found in scales if n_weights > found[0]), (10**3, "K"))
    value = n_weights / scale
    return f"{value:.{0 if value >= 9.5 else 1}f}{letter}"


def _no_progress(done: int, total: int) -> None:
    pass
