"""quantize(): from a checkpoint to a GGUF file, chunk by chunk, on all threads."""

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.atomic_file import beside, check_writable
from edgeqwen.quant.calibration_text import MOST_TOKENS, calibration_windows
from edgeqwen.quant.checkpoint import Checkpoint, SourceTensor, open_checkpoint
from edgeqwen.quant.errors import ErrorSums, TensorErrors
from edgeqwen.quant.gguf_writer import GgufWriter
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.output_check import check_outputs, conversion_inputs
from edgeqwen.quant.overrides import Overrides
from edgeqwen.quant.packed_file import pack
from edgeqwen.quant.plan import opened, prepare
from edgeqwen.quant.recipe import recipe_named
from edgeqwen.quant.report import QuantizeReport, TensorReport
from edgeqwen.quant.threads import thread_count

Progress = Callable[[int, int], None]
Floats = npt.NDArray[np.float32]

# What a thread converts at a time: a few of these are in memory, whatever the model's size.
_TASK_WEIGHTS = 1 << 20


def quantize(
    source: str | Path,
    output: str | Path,
    type: str = "q4_0",
    *,
    imatrix: str | Path | Imatrix | None = None,
    calibrate: str | None = None,
    calibrate_tokens: int = MOST_TOKENS,
    tensor_types: Mapping[str, str] | None = None,
    pad_ffn: bool = False,
    measure_errors: bool = False,
    packed: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> QuantizeReport:
    """Converts a Hugging Face folder or a GGUF file to a GGUF file of another type.

    ``type`` is one of ``edgeqwen.quant.TYPES``, a recipe for the types of all tensors.
    ``imatrix`` is an importance matrix, or the file with one (``edgeqwen imatrix`` or llama.cpp
    makes it): errors in columns that matter more are made smaller.
    ``calibrate`` is a text on which the matrices of the layers are rounded so that they make up
    for each other's errors; up to ``calibrate_tokens`` of its tokens go through the model, in
    float32, and their activations into temporary files beside the output.
    ``tensor_types`` gives matrices another type: the name of one of
    ``edgeqwen.quant.TENSOR_TYPES`` by a regular expression that is searched for in the GGUF name;
    the first that is found decides. ``pad_ffn`` fills the feed-forward size up with zeros to a
    multiple of 256, which changes no result. ``measure_errors`` compares what is written with the
    weights, for the ``errors`` of the report's tensors. ``packed`` packs the result, as ``pack``
    does; the disk must hold it twice for a while. ``n_threads`` is as many as the process may use
    unless given; ``progress(done, total)`` is called with bytes that are written. The output
    appears, or replaces what stood there, only when it is complete. Memory holds the vocabulary and
    some 20 MB per thread, never a whole tensor; calibration takes up to a gigabyte, the more the
    longer rows are.

    Raises OptionError for arguments that make no sense and for an output that is one of the files
    that are read, FileFormatError for a source that is damaged or incomplete, UnsupportedError for
    one that can't be converted, EdgeqwenError if the output can't be written.
    """
    started = time.perf_counter()
    source, output = Path(source), Path(output)
    if packed:
        with contextlib.closing(open_checkpoint(source)) as checkpoint:
            check_outputs((output,), conversion_inputs(checkpoint.files, imatrix))
        with beside(output) as plain:
            report = quantize(
                source,
                plain,
                type,
                imatrix=imatrix,
                calibrate=calibrate,
                calibrate_tokens=calibrate_tokens,
                tensor_types=tensor_types,
                pad_ffn=pad_ffn,
                measure_errors=measure_errors,
                n_threads=n_threads,
                progress=_half(progress, 0),
            )
            n_bytes = pack(plain, output, n_threads=n_threads, progress=_half(progress, 1))
        seconds = time.perf_counter() - started
        return dataclasses.replace(report, output=output, n_bytes=n_bytes, seconds=seconds)
    recipe, overrides = recipe_named(type), Overrides(tensor_types or {})
    threads = thread_count(n_threads)
    check_writable(output)
    show = _never_back(progress or _no_progress)
    with contextlib.ExitStack() as stack:
        checkpoint, weights = stack.enter_context(opened(source, pad_ffn=pad_ffn, imatrix=imatrix))
        check_outputs((output,), conversion_inputs(checkpoint.files, imatrix))
        windows = None
        if calibrate is not None:
            windows = calibration_windows(calibrate, checkpoint, calibrate_tokens)
            weights = weights.with_calibration(windows)
        plan, writer = prepare(checkpoint, source, output, recipe, overrides, weights)
        stack.enter_context(writer)
        if windows is not None:
            from edgeqwen.quant.calibrate import calibrated

            types = {tensor.name: tensor.type for tensor in plan.tensors}
            folder = output.resolve().parent
            work = calibrated(
                checkpoint, types, windows, folder, threads, lambda done: show(done, plan.n_bytes)
            )
            checkpoint = stack.enter_context(work)
        tasks = _tasks(checkpoint, plan.tensors, weights.importance)
        errors = _convert_all(checkpoint, tasks, writer, threads, show, measure=measure_errors)
    return QuantizeReport(
        source=source,
        output=output,
        type=plan.type,
        tensors=tuple(
            dataclasses.replace(tensor, errors=errors.get(tensor.name)) for tensor in plan.tensors
        ),
        n_bytes=plan.n_bytes,
        notes=plan.notes,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """Rows [first, stop) of a tensor, and what they become.

    ``importance``, float32 [columns], weighs the errors of the columns where they are known.
    """

    tensor: SourceTensor
    type: GgmlType
    first: int
    stop: int
    importance: Floats | None

    @property
    def n_bytes(self) -> int:
        """Bytes of what they become."""
        return self.type.n_bytes((self.stop - self.first, self.tensor.shape[-1]))

    @property
    def is_last(self) -> bool:
        return self.stop == self.tensor.n_rows


def _tasks(
    checkpoint: Checkpoint, tensors: tuple[TensorReport, ...], importance: Mapping[str, Floats]
) -> Iterator[_Task]:
    """Yields all work in the order of the file; ``importance`` is by the GGUF names of tensors."""
    for source, target in zip(checkpoint.tensors, tensors, strict=True):
        columns = source.shape[-1]
        weights = importance.get(source.name)
        if weights is not None:
            # Of the columns that padding adds, nobody has measured anything.
            weights = np.pad(weights, (0, columns - len(weights)))
        step = max(1, _TASK_WEIGHTS // columns)
        for first in range(0, source.n_rows, step):
            stop = min(first + step, source.n_rows)
            yield _Task(source, target.type, first, stop, weights)


def _convert_all(
    checkpoint: Checkpoint,
    tasks: Iterable[_Task],
    writer: GgufWriter,
    n_threads: int,
    progress: Progress,
    *,
    measure: bool,
) -> dict[str, TensorErrors]:
    """Converts tasks and writes the results, each to its place, on all threads.

    Returns the errors of all tensors by name if they are to be measured, else nothing.
    """
    # Here and not above: importing the encoders imports numba.
    from edgeqwen.quant.calibrate import CalibratedCheckpoint
    from edgeqwen.quant.rows import convert_rows

    def convert(task: _Task, position: int) -> ErrorSums | None:
        rows = checkpoint.rows(task.tensor, task.first, task.stop)
        errors = ErrorSums() if measure else None
        original = None
        if measure and isinstance(checkpoint, CalibratedCheckpoint):
            original = checkpoint.original(task.tensor.name, task.first, task.stop)
        told = errors if original is None else None
        made = convert_rows(task.tensor, task.first, rows, task.type, task.importance, told)
        if errors is not None and original is not None:
            errors.add(task.first, original, made, task.type, task.importance)
        writer.write_at(position, made.data)
        checkpoint.release(task.tensor, task.first, task.stop)
        return errors

    measured: dict[str, TensorErrors] = {}
    sums = ErrorSums()  # of the tensor whose turn it is
    progress(writer.position, writer.size)
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="edgeqwen-quantize")
    # Tasks under way, with the position behind what they write.
    pending: deque[tuple[_Task, int, Future[ErrorSums | None]]] = deque()

    def finish_first() -> None:
        nonlocal sums
        task, end, result = pending.popleft()
        errors = result.result()
        if errors is not None:
            sums.merge(errors)
            if task.is_last:
                measured[task.tensor.name], sums = sums.result(), ErrorSums()
        progress(end, writer.size)

    try:
        for task in tasks:
            position = writer.take(task.n_bytes)
            if task.is_last:
                writer.end_tensor()
            pending.append((task, writer.position, pool.submit(convert, task, position)))
            # As many more than threads wait for whoever is done first.
            if len(pending) >= 2 * n_threads:
                finish_first()
        while pending:
            finish_first()
    finally:
        pool.shutdown(cancel_futures=True)
    return measured


def _half(progress: Progress | None, half: int) -> Progress:
    """What of a progress one of two parts shows that take alike many bytes."""
    if progress is None:
        return _no_progress
    return lambda done, total: progress(done + half * total, 2 * total)


def _no_progress(done: int, total: int) -> None:
    pass


def _never_back(progress: Progress) -> Progress:
    """What was calibrated is written quickly: the bar waits where calibration has left it."""
    reached = 0

    def show(done: int, total: int) -> None:
        nonlocal reached
        reached = max(reached, done)
        progress(reached, total)

    return show
