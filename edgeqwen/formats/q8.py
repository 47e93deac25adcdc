"""Q8_0: 32 weights of int8 share a float16 scale; value = q * scale.

GGUF block (34 bytes): float16 scale, int8 [32]. Tile (544 bytes): float16 scale [16 rows], then
eight vectors of 64 bytes; vector g holds columns 4g to 4g + 3 of every row.
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import copy_words
from edgeqwen.formats.integer import IntegerBlock, IntegerFormat, Integers
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_i16, poke_i16


class Q8_0Format(IntegerFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q8_0"
    ggml_type = 8
    block_bytes = 32 + 512
    integers = Integers(128, signed=True)

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        copy_words(source + 2, 8, tile + 32 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        plane = e.rows(place.block, row, 4)
        q = [e.load(e.i8v, plane, 32 + 64 * g) for g in range(8)]
        return IntegerBlock(q, [e.load_f16_rows(place.block, row)])


Q8_0 = Q8_0Format()
