"""An importance matrix at work: what errors in each column of a model weigh that is converted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import FileFormatError, OptionError
from edgeqwen.quant.calibration_text import calibration_notes
from edgeqwen.quant.checkpoint import SourceTensor
from edgeqwen.quant.gguf_values import MetadataValue
from edgeqwen.quant.imatrix import Imatrix

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ColumnWeights:
    """What a conversion takes from an importance matrix; nothing where there is none.

    ``importance``: float32 by the GGUF names of matrices, a number for each column that the source
    has, or that padding gives it. ``metadata`` says in the new file what it was made with, by the
    keys of llama-quantize; ``notes`` are sentences for the report.
    """

    importance: Mapping[str, Floats] = field(default_factory=dict)
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_calibration(self, windows: npt.NDArray[np.int64]) -> "ColumnWeights":
        """The same, for a file whose matrices are calibrated on tokens, [windows][length]."""
        metadata = {**self.metadata, "quantize.calibration.tokens": windows.size}
        return replace(self, metadata=metadata, notes=(*self.notes, *calibration_notes(windows)))


NO_WEIGHTS = ColumnWeights()


def column_weights(
    given: str | Path | Imatrix | None,
    model: Path,
    tensors: Iterable[SourceTensor],
    padded: Iterable[SourceTensor],
) -> ColumnWeights:
    """Returns what an importance matrix, or the file with one, says of a model's ``tensors``.

    ``padded`` are the same after padding: what was collected from a padded model fits, too.
    ``model`` is for messages. Raises what ``Imatrix.read`` raises, and OptionError if it is another
    model's.
    """
    if given is None:
        return NO_WEIGHTS
    imatrix = given if isinstance(given, Imatrix) else read_imatrix(given)
    columns = _columns(tensors)
    for name, n_columns in _columns(padded).items():
        if name in imatrix.entries and len(imatrix.entries[name].in_sum2) == n_columns:
            columns[name] = n_columns
    notes = check_imatrix(imatrix, columns, model)
    found = {name: imatrix.importance(name) for name in columns}
    importance = {name: values for name, values in found.items() if values is not None}
    metadata: dict[str, MetadataValue] = {}
    if not isinstance(given, Imatrix):
        # A name that is no Unicode can't be written as it is.
        metadata["quantize.imatrix.file"] = str(given).encode(errors="replace").decode()
    if imatrix.datasets:
        metadata["quantize.imatrix.dataset"] = imatrix.datasets[0]
    metadata["quantize.imatrix.entries_count"] = len(imatrix.entries)
    if imatrix.chunk_count:
        metadata["quantize.imatrix.chunks_count"] = imatrix.chunk_count
    return ColumnWeights(importance, metadata, tuple(notes))


def read_imatrix(path: str | Path) -> Imatrix:
    """Reads an importance matrix; raises what ``Imatrix.read`` raises."""
    path = Path(path)
    # The reader of mapped files takes every file for a model's.
    what = None
    if path.is_dir():
        what = "a folder"
    elif path.exists() and not path.is_file():
        what = "no regular file"
    elif path.exists() and path.stat().st_size == 0:
        what = "empty"
    if what is not None:
        raise FileFormatError(
            f"{path}: is {what}, expected an importance matrix; edgeqwen imatrix makes one from a "
            "model and a text"
        )
    return Imatrix.read(path)


def check_imatrix(imatrix: Imatrix, columns: Mapping[str, int], model: Path) -> list[str]:
    """Does what ``Imatrix.check`` does; also raises OptionError if nothing is said of the model."""
    notes = imatrix.check(columns, str(model))
    if all(imatrix.importance(name) is None for name in columns):
        raise OptionError(
            f"{imatrix.source}: says nothing of any matrix of {model}: it is another model's, or "
            "is empty; collect one from this model (edgeqwen imatrix)"
        )
    return notes


def _columns(tensors: Iterable[SourceTensor]) -> dict[str, int]:
    """Returns the number of columns of each matrix."""
    return {tensor.name: tensor.shape[-1] for tensor in tensors if len(tensor.shape) > 1}
