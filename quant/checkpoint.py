"""Checkpoint: one interface to whatever can be converted, a Hugging Face folder or a GGUF file."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.gguf_values import MetadataValue


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor to convert: ``name`` is GGUF's, ``place`` says for messages where it lies."""

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    place: str

    @property
    def n_rows(self) -> int:
        """How many rows it has; a vector is one."""
        return prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        """The bytes that a row takes."""
        return self.type.n_bytes(self.shape[-1:])


class Checkpoint(Protocol):
    """A model to convert, checked: its tensors are those that ``config`` asks for, in shape.

    ``metadata`` holds every GGUF key except those that tell how tensors are stored; ``files`` are
    what is read while converting; ``notes`` are sentences for the report.
    """

    config: ModelConfig
    metadata: dict[str, MetadataValue]
    tensors: list[SourceTensor]
    files: list[Path]
    notes: list[str]

    def rows(self, tensor: SourceTensor, first: int, stop: int) -> npt.NDArray[np.uint8]:
        """Returns the bytes of rows [first, stop) of one of ``tensors``: uint8, not to be changed.

        Any thread may ask.
        """

    def release(self, tensor: SourceTensor, first: int, stop: int) -> None:
        """Says that rows [first, stop) have been used, so that their memory may go."""

    def close(self) -> None:
        """Lets go of all files."""


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a Hugging Face folder or a GGUF file and checks it.

    Raises OptionError if there is nothing, FileFormatError for what is damaged, incomplete or
    contradicts itself, UnsupportedError for what can't be converted.
    """
    from edgeqwen.quant.gguf_checkpoint import GgufCheckpoint
    from edgeqwen.quant.hf_checkpoint import HfCheckpoint

    if path.is_dir():
        return HfCheckpoint(path)
    if not path.exists():
        raise OptionError(
            f"{path}: no such folder or file; expected a Hugging Face folder or a GGUF file"
        )
    if path.suffix in (".safetensors", ".json"):
        raise OptionError(f"{path}: is one file of a checkpoint; give its folder, {path.parent}")
    return GgufCheckpoint(path)
