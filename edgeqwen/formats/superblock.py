"""Superblocks: 256 columns that share float16 factors of their blocks' small scales.

A tile is a header, which begins with float16 d [16 rows] and goes on with float16 dmin [16] where
the format has minima, and then 8 blocks of 32 columns, which begin with their scales, a byte each,
and go on with planes of bits.
"""

from edgeqwen.formats.base import Place
from edgeqwen.formats.integer import IntegerFormat
from edgeqwen.simd.emitter import Emitter, Value


class SuperblockFormat(IntegerFormat):
    """A format with blocks of 256 columns. ``d`` and ``dmin`` are the header's."""

    header_bytes = 32
    tile_blocks = 8

    def d(self, e: Emitter, place: Place, row: Value) -> Value:
        return e.load_f16_rows(place.tile, row)

    def dmin(self, e: Emitter, place: Place, row: Value) -> Value:
        return e.load_f16_rows(place.tile, row, 32)

    def signed_scales(self, e: Emitter, place: Place, row: Value) -> list[Value]:
        """Emits d times the int8 with which a block begins, [groups][16 rows]."""
        d = self.d(e, place, row)
        scales = [e.load_bytes_rows(place.block, row, 16 * i) for i in range(self.groups)]
        return [e.b.fmul(e.bytes_to_f32(scale, signed=True), d) for scale in scales]
