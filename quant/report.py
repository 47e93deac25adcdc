"""What a conversion will do, and what it did."""

from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from edgeqwen.ggml_types import GgmlType


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One tensor: its type before and after, and the bytes that it takes afterwards.

    ``shape`` (rows, columns) is that of the file to be, padding included.
    """

    name: str
    shape: tuple[int, ...]
    source_type: GgmlType
    type: GgmlType
    n_bytes: int

    @property
    def n_weights(self) -> int:
        """How many weights it has."""
        return prod(self.shape)


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
