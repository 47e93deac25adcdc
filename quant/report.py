"""What a conversion will do, and what it did."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.errors import HISTOGRAM_EDGES, TensorErrors


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One tensor: its type before and after, and the bytes that it takes afterwards.

    ``shape`` (rows, columns) is that of the file to be, padding included. ``errors`` are there
    once it was written, if they were to be measured.
    """

    name: str
    shape: tuple[int, ...]
    source_type: GgmlType
    type: GgmlType
    n_bytes: int
    errors: TensorErrors | None = None

    @property
    def n_weights(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """The bits that one of its weights takes afterwards."""
        return self.n_bytes * 8 / self.n_weights


@dataclass(frozen=True, slots=True)
class TypeTotal:
    """All tensors of a type together."""

    type: GgmlType
    n_tensors: int
    n_weights: int
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizePlan:
    """A conversion that could be: ``n_bytes`` is the size of the file, header and all.

    ``type`` is the recipe's whole name; ``notes`` are sentences about what a user might not
    expect.
    """

    source: Path
    type: str
    tensors: tuple[TensorReport, ...]
    n_bytes: int
    notes: tuple[str, ...] = field(default=())

    @property
    def n_weights(self) -> int:
        """How many weights all tensors have, padding included."""
        return sum(tensor.n_weights for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """The mean over all tensors, without the header."""
        return sum(tensor.n_bytes for tensor in self.tensors) * 8 / self.n_weights

    @property
    def by_type(self) -> tuple[TypeTotal, ...]:
        """The sums for each type, that with most bytes first."""
        totals = []
        for type in {tensor.type for tensor in self.tensors}:
            found = [tensor for tensor in self.tensors if tensor.type is type]
            n_weights = sum(tensor.n_weights for tensor in found)
            n_bytes = sum(tensor.n_bytes for tensor in found)
            totals.append(TypeTotal(type, len(found), n_weights, n_bytes))
        return tuple(sorted(totals, key=lambda total: (-total.n_bytes, total.type)))


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeReport(QuantizePlan):
    """A finished conversion."""

    output: Path
    seconds: float

    def to_json(self) -> str:
        """Returns everything as a JSON object, the bins of the errors' histograms included.

        Types are given by name, and null is what is unknown or no finite number.
        """
        fields = {
            "source": str(self.source),
            "output": str(self.output),
            "type": self.type,
            "n_bytes": self.n_bytes,
            "n_weights": self.n_weights,
            "bits_per_weight": self.bits_per_weight,
            "seconds": self.seconds,
            "notes": self.notes,
            "types": [_fields(total) for total in self.by_type],
            "histogram_edges": HISTOGRAM_EDGES,
            "tensors": [
                {**_fields(tensor), "bits_per_weight": tensor.bits_per_weight}
                for tensor in self.tensors
            ],
        }
        return json.dumps(fields, indent=1, allow_nan=False) + "\n"


def _fields(value: Any) -> Any:
    """Returns a dataclass as JSON has it."""
    if isinstance(value, GgmlType):
        return value.name
    if dataclasses.is_dataclass(value):
        return {f.name: _fields(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return None if isinstance(value, float) and not math.isfinite(value) else value
