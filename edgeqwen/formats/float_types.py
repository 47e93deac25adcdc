"""F32, F16 and BF16: a tile is [32 columns][16 rows] of the GGUF type's own elements."""

from edgeqwen.formats.base import FloatFormat
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_i16, peek_i32, poke_i16, poke_i32


@kernel
def pack_2_bytes(source, n_rows, row_bytes, tiles, n_blocks, first_tile, last_tile):  # type: ignore[no-untyped-def]
    for tile in range(first_tile, last_tile):
        for block in range(n_blocks):
            out = tiles + (tile * n_blocks + block) * 1024
            for r in range(16):
                row = tile * 16 + r
                q = source + row * row_bytes + block * 64
                for k in range(32):
                    poke_i16(out + 32 * k + 2 * r, peek_i16(q + 2 * k) if row < n_rows else 0)


@kernel
def pack_4_bytes(source, n_rows, row_bytes, tiles, n_blocks, first_tile, last_tile):  # type: ignore[no-untyped-def]
    for tile in range(first_tile, last_tile):
        for block in range(n_blocks):
            out = tiles + (tile * n_blocks + block) * 2048
            for r in range(16):
                row = tile * 16 + r
                q = source + row * row_bytes + block * 128
                for k in range(32):
                    poke_i32(out + 64 * k + 4 * r, peek_i32(q + 4 * k) if row < n_rows else 0)


class F32Format(FloatFormat):
    """IEEE single precision."""

    name = "F32"
    ggml_type = 0
    element_bytes = 4
    tile_bytes = 2048
    row_block_bytes = 128
    pack = staticmethod(pack_4_bytes)

    def load(self, e: Emitter, address: Value, offset: int) -> Value:
        return e.load(e.f32v, address, offset)


class F16Format(FloatFormat):
    """IEEE half precision."""

    name = "F16"
    ggml_type = 1
    element_bytes = 2
    tile_bytes = 1024
    row_block_bytes = 64
    pack = staticmethod(pack_2_bytes)

    def load(self, e: Emitter, address: Value, offset: int) -> Value:
        return e.f16_to_f32(e.load(e.f16v, address, offset))


class BF16Format(FloatFormat):
    """The upper half of a single-precision float."""

    name = "BF16"
    ggml_type = 30
    element_bytes = 2
    tile_bytes = 1024
    row_block_bytes = 64
    pack = staticmethod(pack_2_bytes)

    def load(self, e: Emitter, address: Value, offset: int) -> Value:
        return e.bf16_to_f32(e.load(e.half_bits, address, offset))


F32, F16, BF16 = F32Format(), F16Format(), BF16Format()
