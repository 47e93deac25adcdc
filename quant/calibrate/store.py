"""What calibration has written so far: encoded matrices, and a checkpoint that holds them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.checkpoint import Checkpoint, SourceTensor
from edgeqwen.quant.decode import rows_as_floats

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class CalibratedCheckpoint:
    """A checkpoint some of whose matrices are in their new types already.

    ``encoded``: uint8 [bytes] by the GGUF names of these.
    """

    def __init__(
        self, checkpoint: Checkpoint, encoded: Mapping[str, tuple[SourceTensor, Bytes]]
    ) -> None:
        self._checkpoint, self._encoded = checkpoint, encoded
        self._sources = {tensor.name: tensor for tensor in checkpoint.tensors}
        self.config, self.metadata = checkpoint.config, checkpoint.metadata
        self.files, self.notes = checkpoint.files, checkpoint.notes
        self.tensors = [
            encoded[tensor.name][0] if tensor.name in encoded else tensor
            for tensor in checkpoint.tensors
        ]

    def rows(self, tensor: SourceTensor, first: int, stop: int) -> Bytes:
        if tensor.name in self._encoded:
            return self._encoded[tensor.name][1][first * tensor.row_bytes : stop * tensor.row_bytes]
        return self._checkpoint.rows(self._sources[tensor.name], first, stop)

    def original(self, name: str, first: int, stop: int) -> Floats | None:
        """Rows of a calibrated matrix as they were, float32; None for other tensors."""
        if name not in self._encoded:
            return None
        return rows_as_floats(self._checkpoint, self._sources[name], first, stop)

    def release(self, tensor: SourceTensor, first: int, stop: int) -> None:
        if tensor.name not in self._encoded:
            self._checkpoint.release(self._sources[tensor.name], first, stop)

    def close(self) -> None:
        self._checkpoint.close()
