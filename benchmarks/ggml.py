"""ggml's own encoders through its C interface, for comparisons; needs llama-cpp-python (peers)."""

import ctypes
import functools
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.ggml_types import GgmlType

_SUFFIX = {"darwin": "libggml-base.dylib", "win32": "ggml-base.dll"}


@functools.cache
def _library() -> Any:
    """Returns the library that llama-cpp-python brings; raises ImportError if it isn't there."""
    package = importlib.import_module("llama_cpp")
    folder = Path(str(package.__file__)).parent / "lib"
    library = ctypes.CDLL(str(folder / _SUFFIX.get(sys.platform, "libggml-base.so")))
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    library.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, pointer, pointer, count, count, count, pointer),
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def encode(
    type: GgmlType,
    weights: NDArray[np.float32],
    out: NDArray[np.uint8],
    importance: NDArray[np.float32] | None = None,
) -> None:
    """Encodes rows of weights as ggml does, on this thread.

    ``weights``: float32 [rows, columns], contiguous, columns a multiple of the block size; ``out``:
    uint8, of exactly the bytes that they take; ``importance``: float32 [columns].
    """
    library = _library()
    rows, columns = weights.shape
    expected = type.n_bytes(weights.shape)
    if out.nbytes != expected or not (weights.flags.c_contiguous and out.flags.c_contiguous):
        raise ValueError(f"{type.name}: room for {out.nbytes} bytes, expected {expected}")
    if importance is not None and importance.shape != (columns,):
        raise ValueError(f"importance of {importance.shape} columns, expected {columns}")
    library.ggml_quantize_init(int(type))
    written = library.ggml_quantize_chunk(
        int(type),
        weights.ctypes.data,
        out.ctypes.data,
        0,
        rows,
        columns,
        None if importance is None else importance.ctypes.data,
    )
    if written != expected:
        raise RuntimeError(f"ggml wrote {written} bytes of {type.name}, expected {expected}")
