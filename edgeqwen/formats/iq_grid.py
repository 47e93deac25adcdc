"""IQ3, IQ2 and IQ1: 256 weights whose magnitudes come from codebooks, 4 or 8 columns to an index.

These take 1.6 to 3.4 bits a weight in a file. Looking codebooks up in a kernel would be slower than
reading a few bits more: the tile holds 4 bits a weight, which stand for the codebook's few values
and their signs, and takes 4.56 bits. Values stay exactly the same:

    value[nibble] * (d * factor * scale)

where factor is a power of two that makes values and scales integers. Tile (2336 bytes): float16 d
[16 rows], then for each 32 columns: int8 scale [2][16], 4-bit plane. The GGUF blocks are described
with each format; columns 8 e to 8 e + 7 are called octet e, and 4 e to 4 e + 3 quartet e.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgeqwen.formats.base import Place
from edgeqwen.formats.integer import IntegerBlock
from edgeqwen.formats.iq4 import TableFormat
from edgeqwen.formats.superblock import SuperblockFormat
from edgeqwen.simd.compile import inline_kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_i16, peek_u8, peek_u16, peek_u32, poke_i16, poke_u8

_NEGATIVE = 8  # the bit of a code that says so


class GridFormat(TableFormat, SuperblockFormat):
    """A format of codebook indices, whose tile holds codes of 4 bits. See the module's docstring.

    A code's lower three bits are the place of a codebook's value in ``codebook_values``, the fourth
    says that it is negative; ``values[code]`` is what both stand for.
    """

    block_bytes = 32 + 256
    groups = 2
    factor: float
    # The class of ``gguf.quants`` that has the codebook, and the values in it, ascending.
    codebook: str
    codebook_values: tuple[int, ...]

    def table(self) -> NDArray[np.uint8]:
        return _codes(self.codebook, self.codebook_values)

    def d(self, e: Emitter, place: Place, row: Value) -> Value:
        return e.b.fmul(super().d(e, place, row), e.f32(self.factor))

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        q = self.looked_up(e, e.rows(place.block, row, 4), 32)
        return IntegerBlock(q, self.signed_scales(e, place, row))


@cache
def _codes(codebook: str, values: tuple[int, ...]) -> NDArray[np.uint8]:
    """Returns the codes of a codebook, without signs: uint8 [indices][columns of an index]."""
    import gguf.quants

    source = getattr(gguf.quants, codebook)
    source.init_grid()
    grid = source.grid.reshape(source.grid.shape[-2:])
    return np.ascontiguousarray(np.searchsorted(values, grid).astype(np.uint8))


@inline_kernel
def _put_scales(block, row, first, second):  # type: ignore[no-untyped-def]
    """Puts the scales of a block's halves, as odd numbers: 2 s + 1."""
    poke_u8(block + row, 2 * first + 1)
    poke_u8(block + 16 + row, 2 * second + 1)


@inline_kernel
def _put_codes(block, row, column, low, low_signs, high, high_signs):  # type: ignore[no-untyped-def]
    """Puts a code of a column below 16 and one of that 16 columns further on.

    The codes are at the addresses ``low`` and ``high``; the lowest bits of the signs are theirs.
    """
    first = peek_u8(low) | ((low_signs & 1) * _NEGATIVE)
    second = peek_u8(high) | ((high_signs & 1) * _NEGATIVE)
    place = block + 32 + 4 * row + 64 * (column // 4) + column % 4
    poke_u8(place, first | (second << 4))


@inline_kernel
def _put_octets(block, row, octet, low, low_signs, high, high_signs):  # type: ignore[no-untyped-def]
    """Puts 8 codes of octet 0 or 1, and 8 of the octet that comes two later."""
    for j in range(8):
        column = 8 * octet + j
        _put_codes(block, row, column, low + j, low_signs >> j, high + j, high_signs >> j)


@inline_kernel
def _even_signs(seven):  # type: ignore[no-untyped-def]
    """Adds an eighth sign to seven, so that an even number of them is set."""
    seven &= 127
    parity = seven ^ (seven >> 4)
    parity ^= parity >> 2
    parity ^= parity >> 1
    return seven | ((parity & 1) << 7)


class _Magnitudes2(GridFormat):
    """Magnitudes 8, 25 and 43; d * (0.5 + s) / 4 * magnitude."""

    codebook_values = (8, 25, 43)
    values = (8, 25, 43, 0, 0, 0, 0, 0, -8, -25, -43, 0, 0, 0, 0, 0)
    factor = 1 / 8


class IQ2_XXSFormat(_Magnitudes2):  # noqa: N801 - the format's own name
    """66 bytes: float16 d, then for each 32 columns 4 index bytes, and a uint32: 4 x 7 signs, s."""

    name = codebook = "IQ2_XXS"
    ggml_type = 16

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        for s in range(8):
            block, here = tile + 32 + 288 * s, source + 2 + 8 * s
            rest = peek_u32(here + 4)
            _put_scales(block, row, rest >> 28, rest >> 28)
            for o in range(2):
                low, high = table + 8 * peek_u8(here + o), table + 8 * peek_u8(here + o + 2)
                first, second = _even_signs(rest >> (7 * o)), _even_signs(rest >> (7 * o + 14))
                _put_octets(block, row, o, low, first, high, second)


class IQ2_XSFormat(_Magnitudes2):  # noqa: N801 - the format's own name
    """74 bytes: float16 d, uint16 [32] (9 bits of index, 7 of signs), 16 nibbles of s."""

    name = codebook = "IQ2_XS"
    ggml_type = 17

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        for s in range(8):
            block = tile + 32 + 288 * s
            scales = peek_u8(source + 66 + s)
            _put_scales(block, row, scales & 15, scales >> 4)
            for o in range(2):
                first = peek_u16(source + 2 + 2 * (4 * s + o))
                second = peek_u16(source + 2 + 2 * (4 * s + o + 2))
                low, high = table + 8 * (first & 511), table + 8 * (second & 511)
                _put_octets(
                    block, row, o, low, _even_signs(first >> 9), high, _even_signs(second >> 9)
                )


class IQ2_SFormat(_Magnitudes2):  # noqa: N801 - the format's own name
    """82 bytes: float16 d, 32 index bytes, 32 of signs, 8 of high index bits, 16 nibbles of s."""

    name = codebook = "IQ2_S"
    ggml_type = 22

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        for s in range(8):
            block = tile + 32 + 288 * s
            scales, rest = peek_u8(source + 74 + s), peek_u8(source + 66 + s)
            _put_scales(block, row, scales & 15, scales >> 4)
            for o in range(2):
                e = 4 * s + o
                low = peek_u8(source + 2 + e) | ((rest >> (2 * o)) & 3) << 8
                high = peek_u8(source + 4 + e) | ((rest >> (2 * o + 4)) & 3) << 8
                first, second = peek_u8(source + 34 + e), peek_u8(source + 36 + e)
                _put_octets(block, row, o, table + 8 * low, first, table + 8 * high, second)


class IQ3_XXSFormat(GridFormat):  # noqa: N801 - the format's own name
    """98 bytes: float16 d, 64 quartet indices, for each 32 columns a uint32 of 4 x 7 signs and s.

    d * (0.5 + s) / 2 * magnitude, one of 4, 12, 20, ... 60, 62.
    """

    name = codebook = "IQ3_XXS"
    ggml_type = 18
    values = (4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62)
    codebook_values = values[:8]
    factor = 1 / 4

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        for s in range(8):
            block, rest = tile + 32 + 288 * s, peek_u32(source + 66 + 4 * s)
            _put_scales(block, row, rest >> 28, rest >> 28)
            for column in range(16):
                o, j = column // 8, column % 8
                first, second = _even_signs(rest >> (7 * o)), _even_signs(rest >> (7 * o + 14))
                index = source + 2 + 8 * s + column // 4
                low = table + 4 * peek_u8(index) + column % 4
                high = table + 4 * peek_u8(index + 4) + column % 4
                _put_codes(block, row, column, low, first >> j, high, second >> j)


class IQ3_SFormat(GridFormat):  # noqa: N801 - the format's own name
    """110 bytes: float16 d, 64 quartet indices, 8 bytes of their high bits, 32 of signs, 4 of s.

    d * (1 + 2 s) * magnitude, one of 1, 3, 5, ... 15.
    """

    name = codebook = "IQ3_S"
    ggml_type = 21
    values = (1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15)
    codebook_values = values[:8]
    factor = 1.0

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        for s in range(8):
            block, rest = tile + 32 + 288 * s, peek_u8(source + 66 + s)
            scale = (peek_u8(source + 106 + s // 2) >> (4 * (s % 2))) & 15
            _put_scales(block, row, scale, scale)
            for column in range(16):
                quartet, signs = column // 4, source + 74 + 4 * s + column // 8
                index = source + 2 + 8 * s + quartet
                low = peek_u8(index) | ((rest >> quartet) & 1) << 8
                high = peek_u8(index + 4) | ((rest >> (quartet + 4)) & 1) << 8
                first, second = peek_u8(signs) >> (column % 8), peek_u8(signs + 2) >> (column % 8)
                low, high = table + 4 * low + column % 4, table + 4 * high + column % 4
                _put_codes(block, row, column, low, first, high, second)


class _Ternary1(GridFormat):
    """-1, 0 or 1, moved up by an eighth, or down by it where the code says negative."""

    codebook = "IQ1_S"  # for IQ1_M, too
    codebook_values = (-1, 0, 1)
    values = (-7, 1, 9, 0, 0, 0, 0, 0, -9, -1, 7, 0, 0, 0, 0, 0)
    factor = 1 / 8


class IQ1_SFormat(_Ternary1):  # noqa: N801 - the format's own name
    """50 bytes: float16 d, 32 index bytes, then for each 32 columns a uint16.

    Its bits: 4 x 3 high bits of the indices, 3 of s, 1 that moves values down.
    """

    name = "IQ1_S"
    ggml_type = 19

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        for s in range(8):
            block, rest = tile + 32 + 288 * s, peek_u16(source + 34 + 2 * s)
            _put_scales(block, row, (rest >> 12) & 7, (rest >> 12) & 7)
            signs = 255 * (rest >> 15)
            for o in range(2):
                index = source + 2 + 4 * s + o
                low = peek_u8(index) | ((rest >> (3 * o)) & 7) << 8
                high = peek_u8(index + 2) | ((rest >> (3 * o + 6)) & 7) << 8
                _put_octets(block, row, o, table + 8 * low, signs, table + 8 * high, signs)


class IQ1_MFormat(_Ternary1):  # noqa: N801 - the format's own name
    """56 bytes: 32 index bytes, 16 of nibbles (3 high bits, 1 that moves down), uint16 [4].

    The last hold 4 x 3 bits of s each, for 16 columns, and a quarter of the float16 d on top.
    """

    name = "IQ1_M"
    ggml_type = 29

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        d = 0
        for i in range(4):
            d |= (peek_u16(source + 48 + 2 * i) >> 12) << (4 * i)
        poke_i16(tile + 2 * row, d)
        for s in range(8):
            block = tile + 32 + 288 * s
            scales = peek_u16(source + 48 + 2 * (s // 2)) >> (6 * (s % 2))
            _put_scales(block, row, scales & 7, (scales >> 3) & 7)
            for o in range(2):
                index, rest = source + 4 * s + o, source + 32 + 2 * s
                first, second = peek_u8(rest) >> (4 * o), peek_u8(rest + 1) >> (4 * o)
                low = peek_u8(index) | (first & 7) << 8
                high = peek_u8(index + 2) | (second & 7) << 8
                first, second = 255 * ((first >> 3) & 1), 255 * ((second >> 3) & 1)
                _put_octets(block, row, o, table + 8 * low, first, table + 8 * high, second)


IQ2_XXS, IQ2_XS, IQ2_S = IQ2_XXSFormat(), IQ2_XSFormat(), IQ2_SFormat()
IQ3_XXS, IQ3_S = IQ3_XXSFormat(), IQ3_SFormat()
IQ1_S, IQ1_M = IQ1_SFormat(), IQ1_MFormat()
GRID_FORMATS = (IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ1_S, IQ1_M)
