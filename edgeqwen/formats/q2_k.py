"""Q2_K: 256 weights of 2 bits; each 16 have a scale and a minimum of 4 bits.

q * (d * scale) - dmin * minimum. GGUF block (84 bytes): 16 bytes, scale in the low nibble and
minimum in the high one; byte 16 + 32 n + l holds column 128 n + 32 k + l at bit 2 k, n < 2, k < 4,
l < 32; float16 d, float16 dmin.

Tile (1344 bytes): float16 d [16 rows], float16 dmin [16], then for each 32 columns: the byte of
scale and minimum [2][16], 2-bit plane.
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import bit_pairs, put_bit_pairs
from edgeqwen.formats.integer import IntegerBlock, Integers
from edgeqwen.formats.superblock import SuperblockFormat
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_i16, peek_u8, poke_i16, poke_u8


class Q2_KFormat(SuperblockFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q2_K"
    ggml_type = 10
    header_bytes = 64
    block_bytes = 32 + 128
    integers = Integers(3, signed=False)
    groups = 2
    has_minima = True

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source + 80))
        poke_i16(tile + 32 + 2 * row, peek_i16(source + 82))
        for s in range(8):
            block = tile + 64 + 160 * s
            for i in range(2):
                poke_u8(block + 16 * i + row, peek_u8(source + 2 * s + i))
            put_bit_pairs(source + 16 + 32 * (s // 4), 2 * (s % 4), block + 32 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        d, negative_dmin = self.d(e, place, row), e.b.fneg(self.dmin(e, place, row))
        scales, minima = [], []
        for i in range(2):
            both = e.load_bytes_rows(place.block, row, 16 * i)
            # Of single bytes, not of pairs: vectors this short are widened anyway.
            low, high = e.and_bytes(both, 15), e.b.lshr(both, e.constant(4, both.type))
            scales.append(e.b.fmul(e.bytes_to_f32(low, signed=False), d))
            minima.append(e.b.fmul(e.bytes_to_f32(high, signed=False), negative_dmin))
        return IntegerBlock(bit_pairs(e, e.rows(place.block, row, 4), 32), scales, minima)


Q2_K = Q2_KFormat()
