"""F32, F16 and BF16: a tile is [32 columns][16 rows] of the GGUF type's own elements."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

from edgeqwen.formats.base import BLOCK_COLUMNS, TILE_ROWS, Format, Place, Tiling
from edgeqwen.formats.panel import Panel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.ops import peek_i16, peek_i32, poke_i16, poke_i32


class FloatFormat(Format):
    """A format whose weights are floats: a tile is [32 columns][16 rows]."""

    integer_activations = False
    element_bytes: int

    @property
    def block_bytes(self) -> int:  # type: ignore[override]
        return self.element_bytes * TILE_ROWS * BLOCK_COLUMNS

    @abstractmethod
    def load(self, e: Emitter, address: Value, offset: int) -> Value:
        """Emits a load of ``lanes`` weights as float32."""

    def panel(self, isa: Isa, n_tokens: int) -> Panel:
        return Panel(isa, n_tokens, integers=False)

    def panel_width(self, isa: Isa) -> int:
        # Accumulators, one weight vector a part and one broadcast must fit the registers.
        return {1: 12, 2: 5, 4: 3}[isa.parts]

    def panel_parts(self, isa: Isa) -> int:
        return isa.parts

    def emit_one(
        self,
        e: Emitter,
        tiling: Tiling,
        place: Place,
        rows: Sequence[Value],
        panel: Value,
        totals: list[Value],
    ) -> list[Value]:
        starts = [e.rows(place.block, row, self.element_bytes) for row in rows]

        def weight(part: int, k: int) -> Value:
            return self.load(e, starts[part], k * TILE_ROWS * self.element_bytes)

        return _multiply(e, tiling, weight, panel, totals)

    def unpacked_bytes(self, isa: Isa) -> int:
        return 4 * isa.lanes * BLOCK_COLUMNS

    def emit_unpack(self, e: Emitter, place: Place, row: Value, target: Value) -> None:
        start = e.rows(place.block, row, self.element_bytes)
        for k in range(BLOCK_COLUMNS):
            weights = self.load(e, start, k * TILE_ROWS * self.element_bytes)
            e.store(weights, target, 4 * e.isa.lanes * k)

    def emit_many(
        self, e: Emitter, tiling: Tiling, block: Value, panel: Value, totals: list[Value]
    ) -> list[Value]:
        def weight(part: int, k: int) -> Value:
            return e.load(e.f32v, block, 4 * e.isa.lanes * (BLOCK_COLUMNS * part + k))

        return _multiply(e, tiling, weight, panel, totals)

    def emit_dequantize(self, e: Emitter, place: Place, row: Value, out: Value) -> None:
        start = e.rows(place.block, row, self.element_bytes)
        out = e.b.add(out, e.b.mul(row, e.i64(4)))
        for k in range(BLOCK_COLUMNS):
            value = self.load(e, start, k * TILE_ROWS * self.element_bytes)
            e.store(value, out, k * TILE_ROWS * 4)


def _multiply(
    e: Emitter,
    tiling: Tiling,
    weight: Callable[[int, int], Value],
    panel: Value,
    totals: Sequence[Value],
) -> list[Value]:
    """Emits totals[part * n_used + token] += the parts' rows * a panel block, by columns.

    ``weight`` emits the load of a part's weights of one column.
    """
    n_used, result = tiling.n_used, list(totals)
    for k in range(BLOCK_COLUMNS):
        weights = [weight(part, k) for part in range(tiling.n_parts)]
        for t in range(n_used):
            activation = e.load_f32_splat(panel, 128 * t + 4 * k)
            for part, loaded in enumerate(weights):
                i = part * n_used + t
                result[i] = e.fma(loaded, activation, result[i])
    return result


def _pack_2_bytes(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
    for k in range(BLOCK_COLUMNS):
        poke_i16(tile + 32 * k + 2 * row, peek_i16(source + 2 * k))


def _pack_4_bytes(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
    for k in range(BLOCK_COLUMNS):
        poke_i32(tile + 64 * k + 4 * row, peek_i32(source + 4 * k))


class F32Format(FloatFormat):
    """IEEE single precision."""

    name = "F32"
    ggml_type = 0
    element_bytes = 4
    pack_row = staticmethod(_pack_4_bytes)

    def load(self, e: Emitter, address: Value, offset: int) -> Value:
        return e.load(e.f32v, address, offset)


class F16Format(FloatFormat):
    """IEEE half precision."""

    name = "F16"
    ggml_type = 1
    element_bytes = 2
    pack_row = staticmethod(_pack_2_bytes)

    def load(self, e: Emitter, address: Value, offset: int) -> Value:
        return e.f16_to_f32(e.load(e.f16v, address, offset))


class BF16Format(FloatFormat):
    """The upper half of a single-precision float."""

    name = "BF16"
    ggml_type = 30
    element_bytes = 2
    pack_row = staticmethod(_pack_2_bytes)

    def load(self, e: Emitter, address: Value, offset: int) -> Value:
        return e.bf16_to_f32(e.load(e.half_bits, address, offset))


F32, F16, BF16 = F32Format(), F16Format(), BF16Format()
