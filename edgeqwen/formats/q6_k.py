"""Q6_K and Q3_K: 256 signed weights of 6 or 3 bits; each 16 have a signed scale of 8 or 6 bits.

Q6_K: (q - 32) * (d * scale). GGUF block (210 bytes), for both halves n of 128 columns and l < 32:
byte 64 n + 32 i + l holds the low bits of column 128 n + 32 i + l (low nibble) and of column
128 n + 64 + 32 i + l (high nibble), i < 2; byte 128 + 32 n + l holds the high bits of column
128 n + 32 k + l at bit 2 k, k < 4; then int8 scale [16], float16 d.

Q3_K: (q - 4) * (d * (scale - 32)). GGUF block (110 bytes): 32 bytes whose bit s of byte l is the
highest bit of column 32 s + l; byte 32 + 32 n + l holds two bits of column 128 n + 32 k + l at bit
2 k; 12 bytes with 16 scales of 6 bits; float16 d.

Tiles (3360 and 1824 bytes): float16 d [16 rows], then for each 32 columns: int8 scale [2][16], and
a 6-bit plane (Q6_K), or a 2-bit and a 1-bit plane (Q3_K).
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import (
    bit_pairs,
    joined,
    put_bit_pairs,
    put_single_bits,
    put_six_bits,
    single_bits,
    six_bits,
)
from edgeqwen.formats.integer import IntegerBlock, Integers
from edgeqwen.formats.superblock import SuperblockFormat
from edgeqwen.simd.compile import inline_kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_i16, peek_u8, peek_u32, poke_i16, poke_u8


@inline_kernel
def _q3_scale(packed, i):  # type: ignore[no-untyped-def]
    """The i-th of 16 signed scales that Q3_K keeps in 12 bytes."""
    low = (peek_u8(packed + i % 8) >> (4 * (i // 8))) & 15
    high = (peek_u8(packed + 8 + i % 4) >> (2 * (i // 4))) & 3
    return (low | (high << 4)) - 32


@inline_kernel
def q6_word(low, high, k, g):  # type: ignore[no-untyped-def]
    """The g-th four columns of 32, a byte each; ``k`` says which of the bits are theirs."""
    lower = (peek_u32(low + 4 * g) >> (4 * (k // 2))) & 0x0F0F0F0F
    return lower | (((peek_u32(high + 4 * g) >> (2 * k)) & 0x03030303) << 4)


class Q6_KFormat(SuperblockFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q6_K"
    ggml_type = 14
    block_bytes = 32 + 256 + 128
    integers = Integers(63, signed=False, offset=-32)
    groups = 2

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source + 208))
        for s in range(8):
            n, k = s // 4, s % 4
            block = tile + 32 + 416 * s
            for i in range(2):
                poke_u8(block + 16 * i + row, peek_u8(source + 192 + 2 * s + i))
            low, high = source + 64 * n + 32 * (k % 2), source + 128 + 32 * n
            for half in range(2):
                fourth = q6_word(low, high, k, 4 * half + 3)
                for g in range(4 * half, 4 * half + 3):
                    put_six_bits(q6_word(low, high, k, g), fourth, g, block + 32 + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        q = six_bits(e, e.rows(place.block, row, 4), 32)
        return IntegerBlock(q, self.signed_scales(e, place, row))


class Q3_KFormat(SuperblockFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q3_K"
    ggml_type = 11
    block_bytes = 32 + 128 + 64
    integers = Integers(7, signed=False, offset=-4)
    groups = 2

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source + 108))
        for s in range(8):
            block = tile + 32 + 224 * s
            for i in range(2):
                poke_u8(block + 16 * i + row, _q3_scale(source + 96, 2 * s + i))
            plane = block + 32 + 4 * row
            put_bit_pairs(source + 32 + 32 * (s // 4), 2 * (s % 4), plane)
            put_single_bits(source, s, plane + 128)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        plane = e.rows(place.block, row, 4)
        q = joined(e, bit_pairs(e, plane, 32), single_bits(e, plane, 160, 2))
        return IntegerBlock(q, self.signed_scales(e, place, row))


Q6_K, Q3_K = Q6_KFormat(), Q3_KFormat()
