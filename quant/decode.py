"""What bytes of a tensor mean: float32 weights, from any type that the converter reads."""

import numpy as np
import numpy.typing as npt

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.checkpoint import Checkpoint, SourceTensor
from edgeqwen.quant.encode.widen import widen_bf16, widen_f16

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def to_floats(type: GgmlType, source: Bytes, scratch: Floats) -> Floats:
    """Returns the weights that these bytes mean: float32 [n], in ``scratch`` or elsewhere.

    ``scratch`` is float32 of at least as many.
    """
    if type in (GgmlType.F32, GgmlType.F16, GgmlType.BF16):
        # A safetensors header may have any length, so tensors may begin anywhere.
        if source.ctypes.data % type.type_size:
            source = source.copy()
        if type is GgmlType.F32:
            return source.view(np.float32)
        halves = source.view(np.uint16)
        halves.flags.writeable = False
        widened = scratch[: len(halves)]
        (widen_f16 if type is GgmlType.F16 else widen_bf16)(halves, widened.view(np.uint32))
        return widened
    import gguf

    with np.errstate(all="ignore"):  # infinities are found, and named, when they are encoded
        blocks = source.reshape(-1, type.type_size)
        floats = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(type)))
    return np.ascontiguousarray(floats, np.float32).reshape(-1)


def rows_as_floats(checkpoint: Checkpoint, tensor: SourceTensor, first: int, stop: int) -> Floats:
    """Returns rows [first, stop) of a checkpoint's tensor: float32 [rows][columns]."""
    columns = tensor.shape[-1]
    scratch = np.empty((stop - first) * columns, np.float32)
    floats = to_floats(tensor.type, checkpoint.rows(tensor, first, stop), scratch)
    return floats.reshape(-1, columns)
