"""Q4_0 and Q4_1: 32 weights of 4 bits with a float16 scale, and in Q4_1 a float16 minimum.

Q4_0: (nibble - 8) * scale. GGUF block (18 bytes): float16 scale, 16 bytes whose byte i holds column
i (low nibble) and column i + 16 (high nibble). Tile (288 bytes): float16 scale [16 rows], 4-bit
plane.

Q4_1: nibble * scale + minimum. GGUF block (20 bytes): float16 scale, float16 minimum, nibbles as
in Q4_0. Tile (320 bytes): float16 scale [16], float16 minimum [16], 4-bit plane.
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import copy_words, nibbles
from edgeqwen.formats.integer import IntegerBlock, IntegerFormat, Integers
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_i16, poke_i16


class Q4_0Format(IntegerFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q4_0"
    ggml_type = 2
    block_bytes = 32 + 256
    integers = Integers(15, signed=False, offset=-8)

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        copy_words(source + 2, 4, tile + 32 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        scale = e.load_f16_rows(place.block, row)
        return IntegerBlock(nibbles(e, e.rows(place.block, row, 4), 32), [scale])


class Q4_1Format(IntegerFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q4_1"
    ggml_type = 3
    block_bytes = 64 + 256
    integers = Integers(15, signed=False)
    has_minima = True

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        poke_i16(tile + 32 + 2 * row, peek_i16(source + 2))
        copy_words(source + 4, 4, tile + 64 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        scale, minimum = (e.load_f16_rows(place.block, row, 32 * i) for i in range(2))
        return IntegerBlock(nibbles(e, e.rows(place.block, row, 4), 64), [scale], [minimum])


Q4_0, Q4_1 = Q4_0Format(), Q4_1Format()
