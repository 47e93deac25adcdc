"""IQ4_NL and IQ4_XS: 4 bits that stand for one of 16 fixed values, closer together near zero.

IQ4_NL: value[nibble] * scale. GGUF block (18 bytes) and tile (288 bytes) are laid out as in Q4_0.

IQ4_XS: value[nibble] * (d * (scale - 32)). GGUF block (136 bytes): float16 d, uint16 with the two
high bits of 8 scales, 4 bytes with their low nibbles, then for each 32 columns 16 bytes of nibbles
as in Q4_0. Tile (2208 bytes): float16 d [16 rows], then for each 32 columns: int8 scale [16], 4-bit
plane.
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import copy_words, nibbles
from edgeqwen.formats.integer import IntegerBlock, IntegerFormat, Integers
from edgeqwen.formats.superblock import SuperblockFormat
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.ops import peek_i16, peek_u8, peek_u16, poke_i16, poke_u8

# Source: GGML's definition of the two types.
_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# What two unsigned weights may be at most on AVX2 (``Isa.dot_excess``).
_MOST_UNSIGNED = 129


class TableFormat(IntegerFormat):
    """A format whose nibbles stand for 16 values."""

    values: tuple[int, ...]

    def integers_on(self, isa: Isa) -> Integers:
        # Unsigned where the dot product takes them, counted from the lowest value.
        low, span = min(self.values), max(self.values) - min(self.values)
        if isa.dot == "vpdpbusd" or (isa.dot == "vpmaddubsw" and span <= _MOST_UNSIGNED):
            return Integers(span, signed=False, offset=low)
        return Integers(max(map(abs, self.values)), signed=True)

    def looked_up(self, e: Emitter, plane: Value, offset: int) -> list[Value]:
        """Emits the 8 vectors of values that a 4-bit plane stands for."""
        start = self.integers_on(e.isa).offset
        table = [value - start for value in self.values]
        return [e.lookup(table, codes) for codes in nibbles(e, plane, offset)]


class IQ4_NLFormat(TableFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "IQ4_NL"
    ggml_type = 20
    block_bytes = 32 + 256
    values = _VALUES

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        copy_words(source + 2, 4, tile + 32 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        q = self.looked_up(e, e.rows(place.block, row, 4), 32)
        return IntegerBlock(q, [e.load_f16_rows(place.block, row)])


class IQ4_XSFormat(TableFormat, SuperblockFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "IQ4_XS"
    ggml_type = 23
    block_bytes = 16 + 256
    values = _VALUES

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        for s in range(8):
            block = tile + 32 + 272 * s
            low = (peek_u8(source + 4 + s // 2) >> (4 * (s % 2))) & 15
            high = (peek_u16(source + 2) >> (2 * s)) & 3
            poke_u8(block + row, (low | (high << 4)) - 32)
            copy_words(source + 8 + 16 * s, 4, block + 16 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        q = self.looked_up(e, e.rows(place.block, row, 4), 16)
        return IntegerBlock(q, self.signed_scales(e, place, row))


IQ4_NL, IQ4_XS = IQ4_NLFormat(), IQ4_XSFormat()
