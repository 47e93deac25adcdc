"""Q4_K and Q5_K: 256 weights of 4 or 5 bits; each 32 have a scale and a minimum of 6 bits.

q * (d * scale) - dmin * minimum. GGUF blocks of 144 and 176 bytes: float16 d, float16 dmin, 12
bytes with 8 scales and 8 minima, in Q5_K 32 bytes whose bit s of byte l is the highest bit of
column 32 s + l, then 128 bytes: byte 32 j + l holds column 64 j + l (low nibble) and 64 j + 32 + l
(high nibble).

Tiles (2368 and 2880 bytes): float16 d [16 rows], float16 dmin [16], then for each 32 columns: uint8
scale [16], uint8 minimum [16], 4-bit plane, and in Q5_K a 1-bit plane.
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import (
    joined,
    nibbles,
    put_nibbles,
    put_single_bits,
    single_bits,
)
from edgeqwen.formats.integer import IntegerBlock, Integers
from edgeqwen.formats.superblock import SuperblockFormat
from edgeqwen.simd.compile import inline_kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_u16, peek_u32, poke_u8, poke_u16


@inline_kernel
def _put_factors(source, tile, row, block_bytes):  # type: ignore[no-untyped-def]
    """Puts d, dmin, scales and minima into their places."""
    poke_u16(tile + 2 * row, peek_u16(source))
    poke_u16(tile + 32 + 2 * row, peek_u16(source + 2))
    # Scales 0 to 3 are the low 6 bits of the first word's bytes, minima those of the second's; the
    # others have 4 bits in the third word and 2 on top of the first two.
    first, second, third = peek_u32(source + 4), peek_u32(source + 8), peek_u32(source + 12)
    scales = first & 0x3F3F3F3F, third & 0x0F0F0F0F | (first >> 2) & 0x30303030
    minima = second & 0x3F3F3F3F, (third >> 4) & 0x0F0F0F0F | (second >> 2) & 0x30303030
    for half in range(2):
        for i in range(4):
            block = tile + 64 + (4 * half + i) * block_bytes + row
            poke_u8(block, scales[half] >> (8 * i))
            poke_u8(block + 16, minima[half] >> (8 * i))


class Q4_KFormat(SuperblockFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q4_K"
    ggml_type = 12
    header_bytes = 64
    block_bytes = 32 + 256
    integers = Integers(15, signed=False)
    has_minima = True

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        _put_factors(source, tile, row, 288)
        for s in range(8):
            plane = tile + 64 + 288 * s + 32 + 4 * row
            put_nibbles(source + 16 + 32 * (s // 2), 4 * (s % 2), plane)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        d, dmin = self.d(e, place, row), self.dmin(e, place, row)
        scale, minimum = (e.load_bytes_rows(place.block, row, 16 * i) for i in range(2))
        return IntegerBlock(
            self.quants(e, e.rows(place.block, row, 4)),
            [e.b.fmul(e.bytes_to_f32(scale, signed=False), d)],
            [e.b.fmul(e.bytes_to_f32(minimum, signed=False), e.b.fneg(dmin))],
        )

    def quants(self, e: Emitter, plane: Value) -> list[Value]:
        return nibbles(e, plane, 32)


class Q5_KFormat(Q4_KFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "Q5_K"
    ggml_type = 13
    block_bytes = 32 + 256 + 64
    integers = Integers(31, signed=False)

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        _put_factors(source, tile, row, 352)
        for s in range(8):
            plane = tile + 64 + 352 * s + 32 + 4 * row
            put_nibbles(source + 48 + 32 * (s // 2), 4 * (s % 2), plane)
            put_single_bits(source + 16, s, plane + 256)

    def quants(self, e: Emitter, plane: Value) -> list[Value]:
        return joined(e, nibbles(e, plane, 32), single_bits(e, plane, 288, 4))


Q4_K, Q5_K = Q4_KFormat(), Q5_KFormat()
