"""Q5_0 and Q5_1: 32 weights of 5 bits with a float16 scale, and in Q5_1 a float16 minimum.

Q5_0: (q - 16) * scale. GGUF block (22 bytes): float16 scale, 4 bytes whose bit i is the highest
bit of column i, 16 bytes of nibbles as in Q4_0. Tile (352 bytes): float16 scale [16 rows], 4-bit
plane, 1-bit plane.

Q5_1: q * scale + minimum. GGUF block (24 bytes): as Q5_0, with a float16 minimum after the scale.
Tile (384 bytes): float16 scale [16], float16 minimum [16], 4-bit plane, 1-bit plane.
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import copy_words, joined, nibbles, put_bit_string, single_bits
from edgeqwen.formats.integer import IntegerBlock, IntegerFormat, Integers
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_i16, peek_u32, poke_i16


class Q5_0Format(IntegerFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q5_0"
    ggml_type = 6
    block_bytes = 32 + 256 + 64
    integers = Integers(31, signed=False, offset=-16)

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        copy_words(source + 6, 4, tile + 32 + 4 * row)
        put_bit_string(peek_u32(source + 2), tile + 288 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        scale, plane = e.load_f16_rows(place.block, row), e.rows(place.block, row, 4)
        q = joined(e, nibbles(e, plane, 32), single_bits(e, plane, 288, 4))
        return IntegerBlock(q, [scale])


class Q5_1Format(IntegerFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q5_1"
    ggml_type = 7
    block_bytes = 64 + 256 + 64
    integers = Integers(31, signed=False)
    has_minima = True

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        poke_i16(tile + 32 + 2 * row, peek_i16(source + 2))
        copy_words(source + 8, 4, tile + 64 + 4 * row)
        put_bit_string(peek_u32(source + 4), tile + 320 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        scale, minimum = (e.load_f16_rows(place.block, row, 32 * i) for i in range(2))
        plane = e.rows(place.block, row, 4)
        q = joined(e, nibbles(e, plane, 64), single_bits(e, plane, 320, 4))
        return IntegerBlock(q, [scale], [minimum])


Q5_0, Q5_1 = Q5_0Format(), Q5_1Format()
