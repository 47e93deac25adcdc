"""Where codes and scales lie in the blocks of each GGUF type.

Every function fills uint8 ``out`` [blocks][bytes of a block] from a ``Fit`` and uint8 ``codes``
[blocks][weights of a block], counted from the lowest level. Source: the GGML project's definition
of its types; ``edgeqwen.formats`` describes the same layouts from the reader's side.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fit:
    """The scales of some blocks: as they are stored, and as a reader applies them.

    A weight is ``scales * level``, or ``scales * level - minima`` where there are minima; both are
    float32 [groups]. ``d`` and ``dmin`` are float16 [blocks]. ``scale_codes`` and
    ``minimum_codes``, int16 [groups], are what they are multiplied by in types of superblocks.
    """

    scales: Floats
    minima: Floats | None
    d: npt.NDArray[np.float16]
    dmin: npt.NDArray[np.float16] | None = None
    scale_codes: npt.NDArray[np.int16] | None = None
    minimum_codes: npt.NDArray[np.int16] | None = None

    def scale_bytes(self, n_blocks: int, offset: int = 0) -> Bytes:
        """The scale codes plus an offset as uint8 [blocks][groups of a block]."""
        assert self.scale_codes is not None
        return (self.scale_codes + offset).astype(np.uint8).reshape(n_blocks, -1)

    def minimum_bytes(self, n_blocks: int) -> Bytes:
        """The minimum codes as uint8 [blocks][groups of a block]."""
        assert self.minimum_codes is not None
        return self.minimum_codes.astype(np.uint8).reshape(n_blocks, -1)


def _put_half(values: npt.NDArray[np.float16] | None, out: Bytes) -> None:
    assert values is not None
    out[:] = values.reshape(-1, 1).view(np.uint8)


def _nibbles(codes: Bytes, width: int) -> Bytes:
    """Joins codes that are ``width`` columns apart: the first in the low nibble."""
    pairs = codes.reshape(len(codes), -1, 2, width)
    low, high = pairs[:, :, 0], pairs[:, :, 1]
    joined: Bytes = (low & np.uint8(15)) | (high << np.uint8(4))
    return joined.reshape(len(codes), -1)


def _bits(codes: Bytes, bit: int) -> Bytes:
    """Joins a bit of eight codes that are 32 columns apart: the first is the lowest."""
    columns = codes.reshape(len(codes), 8, 32)
    found = np.zeros((len(codes), 32), np.uint8)
    for i in range(8):
        found |= ((columns[:, i] >> bit) & 1) << i
    return found


def _pairs_of_bits(codes: Bytes, bit: int) -> Bytes:
    """Joins two bits of four codes that are 32 columns apart, in each half of a superblock."""
    columns = codes.reshape(len(codes), 2, 4, 32)
    found = np.zeros((len(codes), 2, 32), np.uint8)
    for i in range(4):
        found |= ((columns[:, :, i] >> bit) & 3) << (2 * i)
    return found.reshape(len(codes), 64)


def write_q4_0(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """float16 d, 16 bytes of nibbles; IQ4_NL is laid out alike."""
    _put_half(fit.d, out[:, :2])
    out[:, 2:] = _nibbles(codes, 16)


def write_q4_1(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """float16 d, float16 minimum, 16 bytes of nibbles."""
    _put_half(fit.d, out[:, :2])
    _put_half(fit.dmin, out[:, 2:4])
    out[:, 4:] = _nibbles(codes, 16)


def write_q5_0(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """float16 d, 32 highest bits, 16 bytes of nibbles."""
    _put_half(fit.d, out[:, :2])
    out[:, 2:6] = np.packbits(codes >> 4, axis=1, bitorder="little")
    out[:, 6:] = _nibbles(codes, 16)


def write_q5_1(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """float16 d, float16 minimum, 32 highest bits, 16 bytes of nibbles."""
    _put_half(fit.d, out[:, :2])
    _put_half(fit.dmin, out[:, 2:4])
    out[:, 4:8] = np.packbits(codes >> 4, axis=1, bitorder="little")
    out[:, 8:] = _nibbles(codes, 16)


def write_q2_k(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """16 bytes of scale and minimum, 64 of codes, float16 d, float16 dmin."""
    out[:, :16] = fit.scale_bytes(len(codes)) | (fit.minimum_bytes(len(codes)) << 4)
    out[:, 16:80] = _pairs_of_bits(codes, 0)
    _put_half(fit.d, out[:, 80:82])
    _put_half(fit.dmin, out[:, 82:])


def write_q3_k(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """32 bytes of highest bits, 64 of low ones, 12 of 6-bit scales, float16 d."""
    out[:, :32] = _bits(codes, 2)
    out[:, 32:96] = _pairs_of_bits(codes, 0)
    scales = fit.scale_bytes(len(codes), 32)
    out[:, 96:104] = (scales[:, :8] & 15) | (scales[:, 8:] << 4)
    quarters = (scales >> 4).reshape(-1, 4, 4)
    out[:, 104:108] = 0
    for i in range(4):
        out[:, 104:108] |= quarters[:, i] << (2 * i)
    _put_half(fit.d, out[:, 108:])


def _put_k_factors(fit: Fit, out: Bytes) -> None:
    """float16 d, float16 dmin, 12 bytes with 8 scales and 8 minima of 6 bits."""
    _put_half(fit.d, out[:, :2])
    _put_half(fit.dmin, out[:, 2:4])
    scales, minima = fit.scale_bytes(len(out)), fit.minimum_bytes(len(out))
    out[:, 4:8] = scales[:, :4] | (scales[:, 4:] >> 4 << 6)
    out[:, 8:12] = minima[:, :4] | (minima[:, 4:] >> 4 << 6)
    out[:, 12:16] = (scales[:, 4:] & 15) | (minima[:, 4:] << 4)


def write_q4_k(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """16 bytes of factors, 128 of nibbles."""
    _put_k_factors(fit, out)
    out[:, 16:] = _nibbles(codes, 32)


def write_q5_k(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """16 bytes of factors, 32 of highest bits, 128 of nibbles."""
    _put_k_factors(fit, out)
    out[:, 16:48] = _bits(codes, 4)
    out[:, 48:] = _nibbles(codes, 32)


def write_q6_k(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """128 bytes of low nibbles, 64 of high bits, 16 of signed scales, float16 d."""
    out[:, :128] = _nibbles(codes, 64)
    out[:, 128:192] = _pairs_of_bits(codes, 4)
    out[:, 192:208] = fit.scale_bytes(len(codes))
    _put_half(fit.d, out[:, 208:])


def write_iq4_xs(fit: Fit, codes: Bytes, out: Bytes) -> None:
    """float16 d, 16 high bits of scales, 4 bytes of low nibbles, 128 of codes' nibbles."""
    _put_half(fit.d, out[:, :2])
    scales = fit.scale_bytes(len(codes), 32)
    high = np.zeros((len(codes), 1), np.uint16)
    for i in range(8):
        high[:, 0] |= (scales[:, i].astype(np.uint16) >> 4) << (2 * i)
    out[:, 2:4] = high.view(np.uint8)
    out[:, 4:8] = (scales[:, ::2] & 15) | (scales[:, 1::2] << 4)
    out[:, 8:] = _nibbles(codes, 16)
