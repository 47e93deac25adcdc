"""What a conversion did."""

from dataclasses import dataclass, field
from pathlib import Path

from edgeqwen.ggml_types import GgmlType


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One tensor: its type before and after, and the bytes that it takes now."""

    name: str
    shape: tuple[int, ...]
    source_type: GgmlType
    type: GgmlType
    n_bytes: int


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """A finished conversion; ``n_bytes`` is the size of the file, header and all.

    ``notes`` are sentences about what a user might not expect.
    """

    source: Path
    output: Path
    type: str
    tensors: tuple[TensorReport, ...]
    n_bytes: int
    n_weights: int
    seconds: float
    notes: tuple[str, ...] = field(default=())

    @property
    def bits_per_weight(self) -> float:
        """The mean over all tensors, without the header."""
        return sum(tensor.n_bytes for tensor in self.tensors) * 8 / self.n_weights
