"""GgufCheckpoint: a GGUF file as the source of a conversion."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from edgeqwen.errors import UnsupportedError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_arrays import NumberArray
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant.checkpoint import SourceTensor
from edgeqwen.quant.gguf_values import MetadataValue

# What tells how this very file stores its tensors.
_LEFT_OUT = ("general.alignment", "general.file_type", "general.quantization_version")
_LEFT_OUT_PREFIXES = ("split.", "quantize.")


class GgufCheckpoint:
    """A GGUF file; its metadata is copied, its tensors are read as floats whatever their type.

    Raises what GgufFile raises, and UnsupportedError for a type that can't be turned into floats.
    """

    def __init__(self, path: Path) -> None:
        self._file = GgufFile.open(path)
        try:
            self.config = self._file.config()
            if self._file.is_packed:
                raise UnsupportedError(
                    f"{path}: is packed, which keeps weights in another order; convert the file "
                    "that it was packed from, or the original checkpoint"
                )
            tensors = map(self._file.tensor, self.config.expected_tensors())
            self.tensors = [
                SourceTensor(tensor.name, tensor.type, tensor.shape, f"{path}: {tensor.name}")
                for tensor in sorted(tensors, key=self._file.place)
            ]
            for tensor in self.tensors:
                if not can_dequantize(tensor.type):
                    raise UnsupportedError(
                        f"{tensor.place}: {tensor.type.name} can't be turned into floats; convert "
                        "the original checkpoint"
                    )
        except BaseException:
            self._file.close()
            raise
        self.files = self._file.paths
        self.metadata: dict[str, MetadataValue] = {
            key: _value(value)
            for key, value in self._file.metadata.items()
            if key not in _LEFT_OUT and not key.startswith(_LEFT_OUT_PREFIXES)
        }
        self.notes: list[str] = []
        lossy = sorted({t.type.name for t in self.tensors if t.type.block_size > 1})
        if lossy:
            self.notes.append(
                f"the source is quantized already ({', '.join(lossy)}): converting the original "
                "checkpoint keeps more quality"
            )

    def rows(self, tensor: SourceTensor, first: int, stop: int) -> npt.NDArray[np.uint8]:
        return self._file.data(tensor.name)[first * tensor.row_bytes : stop * tensor.row_bytes]

    def release(self, tensor: SourceTensor, first: int, stop: int) -> None:
        self._file.release(tensor.name, first * tensor.row_bytes, stop * tensor.row_bytes)

    def close(self) -> None:
        self._file.close()


def can_dequantize(type: GgmlType) -> bool:
    """Says whether a type can be turned into floats."""
    try:
        block = np.zeros((1, type.type_size), np.uint8)
        gguf.quants.dequantize(block, gguf.GGMLQuantizationType(int(type)))
    except (NotImplementedError, ValueError):
        return False
    return True


def _value(value: Any) -> Any:
    # An array's own type is kept.
    return value.array if isinstance(value, NumberArray) else value
