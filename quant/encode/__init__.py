"""Encoders from float32 weights to the bytes of GGUF blocks, one file per family of types.

Importing this package imports numba; ``edgeqwen.quant`` does so only when work begins.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.encode.fitting import fit, round_codes
from edgeqwen.quant.encode.floats import encode_bf16, encode_f16, encode_f32
from edgeqwen.quant.encode.q4_0 import encode_q4_0
from edgeqwen.quant.encode.q8_0 import encode_q8_0
from edgeqwen.quant.encode.schemes import SCHEMES

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def encode(type: GgmlType, weights: Floats, out: Bytes, importance: Floats | None = None) -> bool:
    """Encodes whole blocks of weights.

    ``weights`` is float32 of any shape, contiguous, a multiple of the block size in all; ``out``
    is uint8, contiguous, of exactly the bytes that they take. ``importance``, float32 [columns],
    weighs the errors of the columns of which ``weights`` holds whole rows. Runs without the GIL,
    mostly. Returns False if something can't be said in this type: a weight isn't finite, or it is
    too large.
    """
    # One signature for arrays of any shape, writable or not.
    flat = weights.reshape(-1)
    flat.flags.writeable = False
    if not is_searched(type, importance):
        return bool(_ENCODERS[type](flat, out.reshape(-1)))
    scheme = SCHEMES[type]
    if importance is not None:
        importance = np.resize(importance_of_errors(importance), flat.size)
    found = fit(scheme, flat, importance)
    if found is None:
        return False
    codes = np.empty(flat.size, np.uint8)
    round_codes(scheme, found, flat, codes)
    scheme.write(found, codes.reshape(-1, type.block_size), out.reshape(-1, type.type_size))
    return True


def is_searched(type: GgmlType, importance: Floats | None) -> bool:
    """Says whether scales are searched for, or formulas give them as fast as memory is read.

    Where nothing weighs the errors, Q4_0 and Q8_0 are rounded as the reference does, bit for bit.
    """
    return type in SCHEMES and (type not in _ENCODERS or importance is not None)


def importance_of_errors(importance: Floats) -> Floats:
    """Makes float32 [columns] fit to weigh errors by: none is 0, none drowns in its group.

    What never was active in the text that was measured may be in another; and in float32, sums
    over a group keep nothing of weights a million times smaller than the largest.
    """
    largest = importance.max()
    if largest <= 0:
        return np.ones_like(importance)
    groups = (importance / largest).reshape(-1, 16)
    floor = np.maximum(groups.max(axis=1, keepdims=True), np.float32(1e-6))
    weights: Floats = np.maximum(groups, floor * np.float32(1e-6))
    return weights.reshape(-1)


def _f32(weights: Floats, out: Bytes) -> bool:
    return bool(encode_f32(weights, out.view(np.uint32)))


def _f16(weights: Floats, out: Bytes) -> bool:
    return bool(encode_f16(weights, out.view(np.uint16)))


def _bf16(weights: Floats, out: Bytes) -> bool:
    return bool(encode_bf16(weights, out.view(np.uint16)))


def _q4_0(weights: Floats, out: Bytes) -> bool:
    return encode_q4_0(weights, out.view(np.uint16))


_ENCODERS: dict[GgmlType, Callable[[Floats, Bytes], bool]] = {
    GgmlType.F32: _f32,
    GgmlType.F16: _f16,
    GgmlType.BF16: _bf16,
    GgmlType.Q8_0: encode_q8_0,
    GgmlType.Q4_0: _q4_0,
}
