"""What a format is: a tile layout, and the code that multiplies a tile by a panel of activations.

A tile holds 16 rows of a weight matrix over 32 columns. Its rows are interleaved: a vector holds
the same four columns (int8) or the same column (float) of neighbouring rows, so that one broadcast
of activations feeds all rows and nothing is ever summed across lanes. An instruction set with
shorter vectors takes a tile in ``Isa.parts`` parts, each a group of ``Isa.lanes`` rows.

A matrix [n_rows, n_columns] is stored as [n_tiles][n_blocks] tiles, n_tiles = ceil(n_rows / 16),
n_blocks = n_columns / 32; rows past the end are zero.

A panel holds ``n_tokens`` activation vectors, block by block, as the format's kernels read them:

- for integer formats, per block of 32 columns: int8 [n_tokens][32], float32 scale [n_tokens],
  int32 correction [n_tokens], the sum of the 32 int8 times ``Format.panel_offset``;
- for float formats, per block: float32 [n_tokens][32].
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numba import types
from numba.extending import register_model, typeof_impl, unbox

from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.types import TokenModel, unbox_token

TILE_ROWS = 16
TILE_COLUMNS = 32


class Format(ABC):
    """A GGUF tensor type that kernels can run."""

    name: str
    ggml_type: int
    tile_bytes: int
    integer_activations: bool
    # GGUF bytes of 32 columns of one row, which ``pack`` puts into a tile.
    row_block_bytes: int
    # Numba kernel (source, n_rows, row_bytes, tiles, n_blocks, first_tile, last_tile): packs rows
    # of GGUF blocks at ``source`` into tiles [first_tile, last_tile) at ``tiles``.
    pack: Any

    @property
    def panel_token_bytes(self) -> int:
        """Bytes that one token takes in one block of a panel."""
        return 40 if self.integer_activations else 128

    def panel_offset(self, isa: Isa) -> int:
        """Returns what ``emit_step``'s dot products need added to every weight; 0 if nothing."""
        return 0

    @abstractmethod
    def panel_width(self, isa: Isa) -> int:
        """Returns how many tokens a panel holds so that a micro-kernel fits the registers."""

    @abstractmethod
    def panel_parts(self, isa: Isa) -> int:
        """Returns how many parts of a tile a micro-kernel for panels takes at once."""

    def gemv_tiling(self, isa: Isa) -> "Tiling":
        """One token; all parts of a tile at once, so that memory is read in order."""
        return Tiling(self, isa, 1, isa.parts)

    def gemm_tiling(self, isa: Isa) -> "Tiling":
        """A panel of tokens for every tile that is unpacked."""
        return Tiling(self, isa, self.panel_width(isa), self.panel_parts(isa))

    def emit_expand(self, e: Emitter, tiling: "Tiling", block: Value, target: Value) -> None:
        """Emits a copy of a panel block to ``target`` as ``emit_step`` reads it if it expands."""
        raise NotImplementedError(f"{self.name} reads panels as they are")

    @abstractmethod
    def emit_step(
        self,
        e: Emitter,
        tiling: "Tiling",
        tile: Value,
        rows: Sequence[Value],
        panel: Value,
        totals: list[Value],
    ) -> list[Value]:
        """Emits totals[part * n_tokens + token] += tile rows * panel block.

        ``rows`` holds each part's first row in the tile, as an int64 value.
        """

    @abstractmethod
    def emit_dequantize(self, e: Emitter, tile: Value, row: Value, out: Value) -> None:
        """Emits one part's values as float32 into ``out``, laid out as [32 columns][16 rows]."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """A format, an instruction set and a micro-kernel shape: the token that specialises kernels.

    A micro-kernel multiplies ``n_parts`` parts of a tile by ``n_tokens`` tokens in registers.
    """

    format: Format
    isa: Isa
    n_tokens: int
    n_parts: int

    @property
    def panel_block_bytes(self) -> int:
        return self.n_tokens * self.format.panel_token_bytes

    @property
    def expands(self) -> bool:
        """Whether GEMM first writes each broadcast of a panel out as a whole vector.

        Without broadcasts inside other instructions (AVX2), loading those vectors as operands
        saves an instruction in three.
        """
        integers = self.format.integer_activations
        return integers and self.n_tokens > 1 and self.isa.dot == "vpmaddubsw"

    @property
    def step_bytes(self) -> int:
        """Bytes of a panel block as the micro-kernel reads it."""
        # 8 vectors of activations, one of scales and one of corrections for each token.
        return self.n_tokens * 40 * self.isa.lanes if self.expands else self.panel_block_bytes


class TilingType(types.Type):  # type: ignore[misc]
    """The Numba type of a Tiling: kernels compiled for it are cached under its name."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = t = tiling
        shape = f"{t.n_tokens} tokens x {t.n_parts} parts"
        self.isa = t.isa
        super().__init__(name=f"Tiling({t.format.name}, {t.isa.name}/{t.isa.lanes}, {shape})")


register_model(TilingType)(TokenModel)
unbox(TilingType)(unbox_token)


@typeof_impl.register(Tiling)  # type: ignore[untyped-decorator]
def _typeof_tiling(value: Tiling, context: Any) -> TilingType:
    return TilingType(value)


@dataclass(frozen=True, slots=True)
class IntegerBlock:
    """32 columns of one part of a tile, in registers: value = (q + offset) * scale.

    ``q`` is 8 vectors <4*lanes x i8>, four columns of every row each, within the format's
    limits; ``scale`` is <lanes x f32>.
    """

    q: Sequence[Value]
    scale: Value


class IntegerFormat(Format):
    """A format whose weights are small integers with one scale for 32 columns of a row.

    The integers are within [-limit, limit] if ``signed``, else within [0, limit]; a weight is
    (integer + offset) * scale.
    """

    integer_activations = True
    limit: int
    signed: bool
    offset: int

    def panel_offset(self, isa: Isa) -> int:
        return self.offset - isa.dot_excess(self.limit, self.signed)

    @abstractmethod
    def unpack(self, e: Emitter, tile: Value, row: Value) -> IntegerBlock:
        """Emits the unpacking of one part of a tile, which begins at ``row``."""

    def panel_parts(self, isa: Isa) -> int:
        return 1

    def emit_expand(self, e: Emitter, tiling: "Tiling", block: Value, target: Value) -> None:
        for t in range(tiling.n_tokens):
            words = [32 * t + 4 * g for g in range(8)]
            places = [32 * tiling.n_tokens + 4 * t, 36 * tiling.n_tokens + 4 * t]
            for i, offset in enumerate(words + places):
                vector = e.load_i32_splat(block, offset)
                e.store(vector, target, 4 * e.isa.lanes * (10 * t + i))

    def emit_step(
        self,
        e: Emitter,
        tiling: "Tiling",
        tile: Value,
        rows: Sequence[Value],
        panel: Value,
        totals: list[Value],
    ) -> list[Value]:
        n_tokens = tiling.n_tokens
        result = list(totals)
        for part, row in enumerate(rows):
            block = self.unpack(e, tile, row)
            for t in range(n_tokens):
                activations, scale, start = self._activations(e, tiling, panel, t)
                total = e.dot(start, block.q, activations, self.limit, self.signed)
                i = part * n_tokens + t
                scales = e.b.fmul(block.scale, scale)
                result[i] = e.fma(e.i32_to_f32(total), scales, totals[i])
        return result

    def _activations(
        self, e: Emitter, tiling: "Tiling", panel: Value, t: int
    ) -> tuple[list[Value], Value, Value]:
        """Emits loads of a token's 8 broadcasts, its scale, and where its sum starts."""
        n = tiling.n_tokens
        start = e.zero(e.i32v)
        if tiling.expands:
            width = 4 * e.isa.lanes
            activations = [e.load(e.i8v, panel, width * (10 * t + g)) for g in range(8)]
            if self.panel_offset(e.isa):
                start = e.load(e.i32v, panel, width * (10 * t + 9))
            return activations, e.load(e.f32v, panel, width * (10 * t + 8)), start
        words = [e.load_i32_splat(panel, 32 * t + 4 * g) for g in range(8)]
        if self.panel_offset(e.isa):
            start = e.load_i32_splat(panel, 36 * n + 4 * t)
        scale = e.load_f32_splat(panel, 32 * n + 4 * t)
        return [e.b.bitcast(word, e.i8v) for word in words], scale, start

    def emit_dequantize(self, e: Emitter, tile: Value, row: Value, out: Value) -> None:
        block = self.unpack(e, tile, row)
        out = e.b.add(out, e.b.mul(row, e.i64(4)))
        for g, q in enumerate(block.q):
            for j in range(4):
                byte = e.every_fourth(q, j)
                wide = e.b.sext(byte, e.i32v) if self.signed else e.b.zext(byte, e.i32v)
                wide = e.b.add(wide, e.constant(self.offset, e.i32v))
                value = e.b.fmul(e.i32_to_f32(wide), block.scale)
                e.store(value, out, (4 * g + j) * TILE_ROWS * 4)


class FloatFormat(Format):
    """A format whose weights are floats: a tile is [32 columns][16 rows]."""

    integer_activations = False
    element_bytes: int

    @abstractmethod
    def load(self, e: Emitter, address: Value, offset: int) -> Value:
        """Emits a load of ``lanes`` weights as float32."""

    def panel_width(self, isa: Isa) -> int:
        # Accumulators, one weight vector a part and one broadcast must fit the registers.
        return {16: 5, 32: 6}[isa.registers] if isa.parts < 4 else 3

    def panel_parts(self, isa: Isa) -> int:
        return isa.parts

    def emit_step(
        self,
        e: Emitter,
        tiling: "Tiling",
        tile: Value,
        rows: Sequence[Value],
        panel: Value,
        totals: list[Value],
    ) -> list[Value]:
        n_tokens = tiling.n_tokens
        result = list(totals)
        starts = [e.b.add(tile, e.b.mul(row, e.i64(self.element_bytes))) for row in rows]
        for k in range(TILE_COLUMNS):
            weights = [self.load(e, s, k * TILE_ROWS * self.element_bytes) for s in starts]
            for t in range(n_tokens):
                activation = e.load_f32_splat(panel, 128 * t + 4 * k)
                for part, weight in enumerate(weights):
                    i = part * n_tokens + t
                    result[i] = e.fma(weight, activation, result[i])
        return result

    def emit_dequantize(self, e: Emitter, tile: Value, row: Value, out: Value) -> None:
        start = e.b.add(tile, e.b.mul(row, e.i64(self.element_bytes)))
        out = e.b.add(out, e.b.mul(row, e.i64(4)))
        for k in range(TILE_COLUMNS):
            value = self.load(e, start, k * TILE_ROWS * self.element_bytes)
            e.store(value, out, k * TILE_ROWS * 4)
