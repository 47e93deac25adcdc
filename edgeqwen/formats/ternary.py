"""TQ1_0 and TQ2_0: 256 weights of three values with one scale; value = (q - 1) * d.

TQ2_0: GGUF block (66 bytes): byte 32 n + l holds column 128 n + 32 k + l at bit 2 k, n < 2, k < 4,
l < 32; float16 d. TQ1_0: GGUF block (54 bytes): five digits to the base 3 in a byte, as fractions
of 256 with the first digit on top: byte l < 32 holds columns 32 k + l, byte 32 + l with l < 16
columns 160 + 16 k + l, k < 5, and byte 48 + l with l < 4 columns 240 + 4 k + l, k < 4; float16 d.

Tile of both (1056 bytes): float16 d [16 rows], then for each 32 columns a 2-bit plane.
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import bit_pairs, put_bit_pairs
from edgeqwen.formats.integer import IntegerBlock, Integers
from edgeqwen.formats.superblock import SuperblockFormat
from edgeqwen.simd.compile import inline_kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_i16, peek_u8, poke_i16, poke_u8


@inline_kernel
def _digit(source, column):  # type: ignore[no-untyped-def]
    """The digit of a column of TQ1_0: 0, 1 or 2."""
    byte, place = column % 32, column // 32
    if column >= 160:
        byte, place = 32 + column % 16, (column - 160) // 16
    if column >= 240:
        byte, place = 48 + column % 4, (column - 240) // 4
    fraction = peek_u8(source + byte)
    for _ in range(place):
        fraction = (fraction * 3) & 255
    return (fraction * 3) >> 8


class TQ2_0Format(SuperblockFormat):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "TQ2_0"
    ggml_type = 35
    block_bytes = 128
    integers = Integers(3, signed=False, offset=-1)

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source + 64))
        for s in range(8):
            put_bit_pairs(source + 32 * (s // 4), 2 * (s % 4), tile + 32 + 128 * s + 4 * row)

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        return IntegerBlock(bit_pairs(e, e.rows(place.block, row, 4), 0), [self.d(e, place, row)])


class TQ1_0Format(TQ2_0Format):  # noqa: N801 - the format's own name
    """See the module's docstring."""

    name = "TQ1_0"
    ggml_type = 34

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source + 52))
        for s in range(8):
            plane = tile + 32 + 128 * s + 4 * row
            for i in range(2):
                for j in range(4):
                    byte = 0
                    for k in range(4):
                        # Vector g = i + 2 k of the plane, its j-th column.
                        byte |= _digit(source, 32 * s + 4 * (i + 2 * k) + j) << (2 * k)
                    poke_u8(plane + 64 * i + j, byte)


TQ1_0, TQ2_0 = TQ1_0Format(), TQ2_0Format()
