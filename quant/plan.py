"""plan(): what a conversion would do, known from the headers of its source alone."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.checkpoint import Checkpoint, open_checkpoint
from edgeqwen.quant.gguf_writer import GgufWriter, PlannedTensor
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_use import NO_WEIGHTS, ColumnWeights, column_weights
from edgeqwen.quant.overrides import Overrides
from edgeqwen.quant.padding import padded
from edgeqwen.quant.recipe import Recipe, fitting, recipe_named
from edgeqwen.quant.report import QuantizePlan, TensorReport

_QUANTIZATION_VERSION = 2  # of the block formats, as GGUF counts them


def plan(
    source: str | Path,
    type: str = "q4_0",
    *,
    imatrix: str | Path | Imatrix | None = None,
    tensor_types: Mapping[str, str] | None = None,
    pad_ffn: bool = False,
) -> QuantizePlan:
    """Returns what ``quantize`` would do with these arguments; reads no weights, writes nothing.

    Raises what ``quantize`` raises for them, except for weights that can't be converted.
    """
    recipe, overrides = recipe_named(type), Overrides(tensor_types or {})
    source = Path(source)
    with opened(source, pad_ffn=pad_ffn, imatrix=imatrix) as (checkpoint, weights):
        # A writer that isn't entered knows the size of its file and touches nothing.
        return prepare(checkpoint, source, source, recipe, overrides, weights)[0]


@contextlib.contextmanager
def opened(
    source: Path, *, pad_ffn: bool, imatrix: str | Path | Imatrix | None
) -> Iterator[tuple[Checkpoint, ColumnWeights]]:
    """Opens what is to be converted, padded if that is asked for, with what its columns weigh.

    Raises what ``open_checkpoint`` and ``column_weights`` raise.
    """
    with contextlib.closing(open_checkpoint(source)) as checkpoint:
        ready = padded(checkpoint) if pad_ffn else checkpoint
        yield ready, column_weights(imatrix, source, checkpoint.tensors, ready.tensors)


def prepare(
    checkpoint: Checkpoint,
    source: Path,
    output: Path,
    recipe: Recipe,
    overrides: Overrides,
    weights: ColumnWeights = NO_WEIGHTS,
) -> tuple[QuantizePlan, GgufWriter]:
    """Returns the plan of a conversion, and the writer that has yet to be entered.

    The plan's tensors are in the checkpoint's order. Where the weights of columns are known, some
    choices are others. Raises OptionError where an override is found in no name.
    """
    matrices = [tensor.name for tensor in checkpoint.tensors if len(tensor.shape) > 1]
    overrides.check_all_used(matrices)
    tensors: list[TensorReport] = []
    replaced: list[tuple[TensorReport, GgmlType]] = []
    for tensor in checkpoint.tensors:
        shape = tensor.shape
        wanted = overrides.type_of(tensor.name) if len(shape) > 1 else None
        if wanted is None:
            config = checkpoint.config
            has_imatrix = bool(weights.importance)
            wanted = recipe.wanted(tensor.name, shape, config, has_imatrix=has_imatrix)
        type = fitting(wanted, shape[-1])
        report = TensorReport(tensor.name, shape, tensor.type, type, type.n_bytes(shape))
        tensors.append(report)
        if type is not wanted:
            replaced.append((report, wanted))
    n_weights = sum(tensor.n_weights for tensor in tensors)
    metadata = {
        **checkpoint.metadata,
        "general.size_label": _size_label(n_weights),
        "general.file_type": recipe.file_type,
        "general.quantization_version": _QUANTIZATION_VERSION,
        **weights.metadata,
    }
    # People read listings from the top: what the file is comes before its vocabulary.
    keys = sorted(metadata, key=lambda key: not key.startswith("general."))
    planned = [PlannedTensor(tensor.name, tensor.type, tensor.shape) for tensor in tensors]
    writer = GgufWriter(output, {key: metadata[key] for key in keys}, planned)
    found = QuantizePlan(
        source=source,
        type=recipe.name,
        tensors=tuple(tensors),
        n_bytes=writer.size,
        notes=(*checkpoint.notes, *weights.notes, *_fallback_notes(replaced)),
    )
    return found, writer


def _fallback_notes(replaced: list[tuple[TensorReport, GgmlType]]) -> list[str]:
    """Says which matrices have rows that don't fill whole blocks, given what they should be."""
    if not replaced:
        return []
    (first, wanted), n = replaced[0], len(replaced)
    note = (
        f"{n} {'matrix is' if n == 1 else 'matrices are'} not of the type meant for "
        f"{'it' if n == 1 else 'them'}: {first.name} is {first.type.name}, because its "
        f"{first.shape[-1]} columns are not a multiple of {wanted.block_size}, which "
        f"{wanted.name} needs"
    )
    if all(".ffn_down." in tensor.name for tensor, _ in replaced):
        note += f"; padding with zeros (--pad-ffn) makes {'it' if n == 1 else 'them'} fit"
    return [note]


def _size_label(n_weights: int) -> str:
    """Returns a number of weights as model names have it: 494M, 1.5B, 73B."""
    scales = ((10**12, "T"), (10**9, "B"), (10**6, "M"))
    scale, letter = next((found for found in scales if n_weights > found[0]), (10**3, "K"))
    value = n_weights / scale
    return f"{value:.{0 if value >= 9.5 else 1}f}{letter}"
