"""Q4_0: 32 weights share a float16 scale; value = (nibble - 8) * scale.

GGUF block (18 bytes): float16 scale, 16 bytes whose byte i holds column i (low nibble) and
column i + 16 (high nibble). Tile (288 bytes): float16 scale [16 rows], then four vectors of 64
bytes; vector g holds, for every row, GGUF's bytes 4g to 4g + 3, that is columns 4g.. (low nibbles)
and 16 + 4g.. (high nibbles).
"""

from edgeqwen.formats.base import IntegerBlock, IntegerFormat
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.ops import peek_i16, peek_i32, poke_i16, poke_i32

BLOCK_BYTES = 18
TILE_BYTES = 288


@kernel
def pack(source, n_rows, row_bytes, tiles, n_blocks, first_tile, last_tile):  # type: ignore[no-untyped-def]
    for tile in range(first_tile, last_tile):
        for block in range(n_blocks):
            out = tiles + (tile * n_blocks + block) * TILE_BYTES
            for r in range(16):
                row = tile * 16 + r
                if row < n_rows:
                    q = source + row * row_bytes + block * BLOCK_BYTES
                    poke_i16(out + 2 * r, peek_i16(q))
                    for g in range(4):
                        poke_i32(out + 32 + 64 * g + 4 * r, peek_i32(q + 2 + 4 * g))
                else:
                    poke_i16(out + 2 * r, 0)
                    for g in range(4):
                        poke_i32(out + 32 + 64 * g + 4 * r, 0)


class Q4_0Format(IntegerFormat):  # noqa: N801 - the format's own name
    """See the module's docstring for the layout."""

    name = "Q4_0"
    ggml_type = 2
    tile_bytes = TILE_BYTES
    row_block_bytes = BLOCK_BYTES
    limit, signed, offset = 15, False, -8
    pack = staticmethod(pack)

    def panel_width(self, isa: Isa) -> int:
        # 8 unpacked weight vectors, an accumulator a token, and room for the dot product.
        return {16: 4, 32: 12}[isa.registers]

    def unpack(self, e: Emitter, tile: Value, row: Value) -> IntegerBlock:
        scales = e.b.add(tile, e.b.mul(row, e.i64(2)))
        nibbles = e.b.add(tile, e.b.mul(row, e.i64(4)))
        raw = [e.load(e.i8v, nibbles, 32 + 64 * g) for g in range(4)]
        low = [e.and_bytes(v, 15) for v in raw]
        high = [e.and_bytes(e.shift_bytes_right(v, 4), 15) for v in raw]
        scale = e.f16_to_f32(e.load(e.f16v, scales))
        return IntegerBlock([*low, *high], scale)


Q4_0 = Q4_0Format()
