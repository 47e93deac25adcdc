"""Plain readings of quantized data: whole files through gguf's own reader, activations in int8."""

from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize

BLOCK = 32  # values that share one scale in the runtime's int8 activations


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Returns every tensor of a GGUF file as float32, rows first, by its GGUF name.

    Neither the project's reader nor its formats are involved: ``gguf`` is the oracle for both.
    """
    weights = {}
    for tensor in GGUFReader(path).tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        values = dequantize(tensor.data, tensor.tensor_type)
        weights[tensor.name] = np.asarray(values, np.float32).reshape(shape)
    return weights


def tensor_types(path: str | Path) -> dict[str, str]:
    """Returns the GGUF type name (``F32``, ``Q4_0``, ...) of every tensor of a file."""
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def quantize_int8(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds activations to int8 with one float32 scale, absmax / 127, for each 32 values.

    x: [..., n], n a multiple of 32. Returns (int8 [..., n / 32, 32], float32 [..., n / 32, 1]).
    Halves round to even; a block of zeros has scale 0.
    """
    blocks = np.asarray(x, np.float32).reshape(*x.shape[:-1], -1, BLOCK)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    scale = largest / np.float32(127)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    return np.rint(blocks * inverse).astype(np.int8), scale


def round_int8(x: np.ndarray) -> np.ndarray:
    """Returns float32 activations of the same shape after a round trip through int8."""
    values, scale = quantize_int8(x)
    rounded: np.ndarray = (values.astype(np.float32) * scale).reshape(x.shape)
    return rounded


def round_f16(x: np.ndarray) -> np.ndarray:
    """Returns the values after a round trip through IEEE half precision, in their own dtype."""
    rounded: np.ndarray = x.astype(np.float16).astype(x.dtype)
    return rounded
