"""Writes GGUF metadata: keys, scalars, strings and arrays as the bytes of the file.

Source: the GGUF specification of the GGML project, version 3, little-endian.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Scalar: TypeAlias = str | bool | int | float
MetadataValue: TypeAlias = Scalar | Sequence[str] | Sequence[int] | npt.NDArray[np.generic]
"""A number's type in the file: float is float32; int is uint32 where it fits, else the smallest of
int32, uint64 and int64 that holds it. In a list, int is int32; a numpy array keeps its type."""

_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _UINT64, _INT64 = 4, 5, 6, 7, 8, 9, 10, 11
_FLOAT64 = 12
_ARRAY_TYPES = {
    "u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7, "u8": 10, "i8": 11,
    "f8": 12,
}  # fmt: skip
# Keys that readers expect as int32, though their values are never negative.
_SIGNED_KEYS = ("general.sampling.top_k", "general.sampling.penalty_last_n")


def encode_metadata(metadata: Mapping[str, MetadataValue]) -> bytes:
    """Returns the bytes of all keys and values, in order."""
    out = bytearray()
    for key, value in metadata.items():
        out += encode_string(key) + _encode_value(key, value)
    return bytes(out)


def encode_string(text: str) -> bytes:
    """Returns a string behind its length."""
    data = text.encode()
    return len(data).to_bytes(8, "little") + data


def _encode_value(key: str, value: MetadataValue) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + encode_string(value)
    if isinstance(value, bool):
        return struct.pack("<IB", _BOOL, value)
    if isinstance(value, int):
        return _encode_integer(key, value)
    if isinstance(value, np.float64):
        return struct.pack("<Id", _FLOAT64, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, np.ndarray):
        kind = _ARRAY_TYPES[value.dtype.str[1:]]
        data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + data
    if value and isinstance(value[0], int):
        return _encode_value(key, np.array(value, np.int32))
    strings = b"".join(map(encode_string, map(str, value)))
    return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + strings


def _encode_integer(key: str, value: int) -> bytes:
    if 0 <= value < 1 << 32 and key not in _SIGNED_KEYS:
        return struct.pack("<II", _UINT32, value)
    if -(1 << 31) <= value < 1 << 31:
        return struct.pack("<Ii", _INT32, value)
    if value > 0:
        return struct.pack("<IQ", _UINT64, value)
    return struct.pack("<Iq", _INT64, value)
