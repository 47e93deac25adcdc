"""Q8_0: 32 weights of int8 share a float16 scale; value = q * scale.

GGUF block (34 bytes): float16 scale, int8 [32]. Tile (544 bytes): float16 scale [16 rows], then
eight vectors of 64 bytes; vector g holds columns 4g to 4g + 3 of every row.
"""

from edgeqwen.formats.base import IntegerBlock, IntegerFormat
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.ops import peek_i16, peek_i32, poke_i16, poke_i32

BLOCK_BYTES = 34
TILE_BYTES = 544


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
                    for g in range(8):
                        poke_i32(out + 32 + 64 * g + 4 * r, peek_i32(q + 2 + 4 * g))
                else:
                    poke_i16(out + 2 * r, 0)
                    for g in range(8):
                        poke_i32(out + 32 + 64 * g + 4 * r, 0)


class Q8_0Format(IntegerFormat):  # noqa: N801 - the format's own name
    """See the module's docstring for the layout."""

    name = "Q8_0"
    ggml_type = 8
    tile_bytes = TILE_BYTES
    row_block_bytes = BLOCK_BYTES
    limit, signed, offset = 128, True, 0
    pack = staticmethod(pack)

    def panel_width(self, isa: Isa) -> int:
        return {16: 4, 32: 12}[isa.registers]

    def unpack(self, e: Emitter, tile: Value, row: Value) -> IntegerBlock:
        scales = e.b.add(tile, e.b.mul(row, e.i64(2)))
        values = e.b.add(tile, e.b.mul(row, e.i64(4)))
        q = [e.load(e.i8v, values, 32 + 64 * g) for g in range(8)]
        scale = e.f16_to_f32(e.load(e.f16v, scales))
        return IntegerBlock(q, scale)


Q8_0 = Q8_0Format()
