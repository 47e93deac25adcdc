"""Encoders against llama.cpp's own, type by type: errors are at most as large.

Both get the same weights, and the same importance of columns or none.
"""

import ctypes
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.encode import SCHEMES, encode
from tests.quant.weight_samples import EXACT, KINDS, importance, sample

llama_cpp = pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
pytestmark = pytest.mark.peers

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

TYPES = (GgmlType.Q8_0, *SCHEMES)
COLUMNS = 1024
# How much larger errors may be than llama.cpp's, where not 1 % smaller.
AT_MOST = {"outliers": 1.0, "bimodal": 1.002, "ternary": 1.0, "constant": 1.0}


@pytest.fixture(scope="module")
def ggml() -> Any:
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")
    folder = Path(llama_cpp.__file__).parent / "lib"
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        pytest.skip(f"needs ggml's library in {folder}")
    library = ctypes.CDLL(str(found[0]))
    size, pointer = ctypes.c_int64, ctypes.c_void_p
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, pointer, pointer),
        *(size, size, size, pointer),
    ]
    return library


def theirs(ggml: Any, type: GgmlType, x: Floats, w: Floats | None) -> Bytes:
    out = np.empty((len(x), type.n_bytes(x.shape[1:])), np.uint8)
    ggml.ggml_quantize_init(int(type))
    given = None if w is None else w.ctypes.data
    done = ggml.ggml_quantize_chunk(int(type), x.ctypes.data, out.ctypes.data, 0, *x.shape, given)
    assert done == out.size
    return out


def ours(type: GgmlType, x: Floats, w: Floats | None) -> Bytes:
    out = np.empty((len(x), type.n_bytes(x.shape[1:])), np.uint8)
    assert encode(type, x, out, w)
    return out


def error(type: GgmlType, blocks: Bytes, x: Floats, w: Floats | None) -> float:
    found = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(type)))
    squares = (found.astype(np.float64) - x) ** 2
    return float((squares if w is None else squares * w).mean())


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_at_most_llama_cpps(
    ggml: Any, type: GgmlType, kind: str, weighted: bool
) -> None:
    x, w = sample(kind, 64, COLUMNS), importance(COLUMNS) if weighted else None
    limit = error(type, theirs(ggml, type, x, w), x, w)
    # Types that round each weight alone give the same; the others are searched for better.
    searched = type is not GgmlType.Q8_0 and (weighted or type is not GgmlType.Q4_0)
    if searched:
        limit *= AT_MOST.get(kind, 0.99)
    if kind in EXACT:
        # What is left there, in both, is how the scales were rounded to float16.
        limit += 1e-6 * error(type, np.zeros_like(theirs(ggml, type, x, w)), x, w)
    assert error(type, ours(type, x, w), x, w) <= limit


@pytest.mark.parametrize("type", [GgmlType.Q8_0, GgmlType.Q4_0], ids=lambda type: type.name)
def test_plain_rounding_is_the_same(ggml: Any, type: GgmlType) -> None:
    x = sample("t4", 64, COLUMNS)
    ours_, theirs_ = ours(type, x, None), theirs(ggml, type, x, None)
    # ggml multiplies where gguf divides: of halves, some go the other way.
    assert (ours_ != theirs_).mean() < 1e-4
