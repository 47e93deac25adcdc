"""A report with errors of every kind, made by hand."""

from pathlib import Path

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant import (
    HISTOGRAM_EDGES,
    QuantizeReport,
    TensorErrors,
    TensorReport,
    WorstBlock,
)


def some_errors(relative: float, *, weighted: float | None = None) -> TensorErrors:
    """Returns errors of a tensor whose RMS is 0.5."""
    histogram = [0] * (len(HISTOGRAM_EDGES) + 1)
    histogram[20:24] = 1, 10, 100, 0
    return TensorErrors(
        n=64 * 256,
        rms=0.5,
        rmse=relative / 2,
        relative_rmse=relative,
        weighted_relative_rmse=weighted,
        cosine=1 - relative**2 / 2,
        max_error=relative * 2,
        worst=WorstBlock(7, 32, relative, relative * 2) if relative else None,
        histogram=tuple(histogram),
    )


def tensor(name: str, errors: TensorErrors | None, type: GgmlType = GgmlType.Q4_0) -> TensorReport:
    shape = (64, 256)
    return TensorReport(name, shape, GgmlType.BF16, type, type.n_bytes(shape), errors)


def some_report(
    *tensors: TensorReport, source: str = "in", output: str = "out.gguf"
) -> QuantizeReport:
    """Returns a report of these tensors, or of two layers and an embedding."""
    found = tensors or (
        tensor("token_embd.weight", some_errors(0.0041), GgmlType.Q8_0),
        tensor("blk.0.attn_q.weight", some_errors(0.07)),
        tensor("blk.0.attn_norm.weight", some_errors(0.0), GgmlType.F32),
        tensor("blk.1.attn_q.weight", some_errors(0.09)),
        tensor("blk.0.ffn_up.weight", some_errors(0.06)),
        tensor("blk.1.ffn_up.weight", some_errors(0.0), GgmlType.F32),
    )
    return QuantizeReport(
        source=Path(source),
        output=Path(output),
        type="q4_0",
        tensors=found,
        n_bytes=123_456,
        seconds=1.25,
        notes=("a note",),
    )
