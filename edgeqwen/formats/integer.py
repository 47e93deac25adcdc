"""Formats whose weights are small integers: what they unpack to, and products with int8.

A weight is (integer + offset) * scale, or integer * scale + minimum, in float32. Scales and minima
belong to groups of 32 columns, or of 16 where ``groups`` is 2. Minima are multiplied by the panel's
scaled sums; what the dot products need added to every weight is where their sums start.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from edgeqwen.formats.base import TILE_ROWS, Format, Place, Tiling
from edgeqwen.formats.panel import Panel
from edgeqwen.formats.panel_token import PanelToken, expand_block
from edgeqwen.formats.sums import scaled, shift_of_scale, start_of_sums
from edgeqwen.formats.unpacked import UnpackedBlocks, columns_of_groups
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa


@dataclass(frozen=True, slots=True)
class Integers:
    """Which integers a format unpacks to: in [-limit, limit] if ``signed``, else in [0, limit]."""

    limit: int
    signed: bool
    offset: int = 0


@dataclass(frozen=True, slots=True)
class IntegerBlock:
    """32 columns of one part of a tile, in registers.

    ``q`` is 8 vectors <4*lanes x i8>, four columns of every row each; ``scales`` and ``minima``
    are <lanes x f32>, one for each group of columns.
    """

    q: Sequence[Value]
    scales: Sequence[Value]
    minima: Sequence[Value] = ()


class IntegerFormat(Format):
    """A format whose activations are int8. See the module's docstring."""

    integer_activations = True
    integers: Integers
    # Groups of columns in a block, each with a scale of its own: 1 or 2.
    groups = 1
    has_minima = False

    def integers_on(self, isa: Isa) -> Integers:
        """Returns which integers ``unpack`` gives on an instruction set."""
        return self.integers

    def is_signed(self, isa: Isa) -> bool:
        return self.integers_on(isa).signed

    def panel_offset(self, isa: Isa) -> int:
        """Returns what the dot products need added to every weight; 0 if nothing."""
        integers = self.integers_on(isa)
        return integers.offset - isa.dot_excess(integers.limit, integers.signed)

    @abstractmethod
    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        """Emits the unpacking of one part of a block, which begins at ``row``."""

    def panel(self, isa: Isa, n_tokens: int) -> Panel:
        offset = 0 if self.has_minima else self.panel_offset(isa)
        return Panel(isa, n_tokens, True, self.groups, self.has_minima, offset)

    def panel_width(self, isa: Isa) -> int:
        if isa.dot == "vpmaddubsw":
            # A sum and a total for each token, a vector of weights, a product. What is expanded
            # for a tile should leave room for others in the first-level cache.
            return 4 if self.is_signed(isa) and self.tile_blocks > 1 else 6
        if isa.registers == 16:
            return 6 if isa.dot == "vpdpbusd" else 4
        # A sum and a total for each token; without fences, LLVM keeps the sums of both groups.
        return 12 if self.groups == 1 or isa.fences else 8

    def panel_parts(self, isa: Isa) -> int:
        return 1

    def _unpacked(self, isa: Isa) -> UnpackedBlocks:
        integers = self.integers_on(isa)
        limit, signed = isa.dot_range(integers.limit, integers.signed)
        from_panel = self._starts_at_sum(isa)
        return UnpackedBlocks(limit, signed, self.groups, self.has_minima, from_panel)

    def unpacked_bytes(self, isa: Isa) -> int:
        return 4 * isa.lanes * self._unpacked(isa).vectors

    def emit_unpack(self, e: Emitter, place: Place, row: Value, target: Value) -> None:
        block, integers = self.unpack(e, place, row), self.integers_on(e.isa)
        q = [e.dot_weight(v, integers.limit, integers.signed) for v in block.q]
        self._unpacked(e.isa).emit_store(e, target, q, block.scales, block.minima)

    def emit_many(
        self, e: Emitter, tiling: Tiling, block: Value, panel: Value, totals: list[Value]
    ) -> list[Value]:
        return self._unpacked(e.isa).emit_product(e, tiling, block, panel, totals)

    def emit_expand(self, e: Emitter, tiling: Tiling, block: Value, target: Value) -> None:
        expand_block(e, tiling, block, target)

    def emit_one(
        self,
        e: Emitter,
        tiling: Tiling,
        place: Place,
        rows: Sequence[Value],
        panel: Value,
        totals: list[Value],
    ) -> list[Value]:
        token, integers = PanelToken(e, tiling, panel, 0), self.integers_on(e.isa)
        groups = columns_of_groups(self.groups)
        result = []
        for row, total in zip(rows, totals, strict=True):
            block = self.unpack(e, place, row)
            for group, columns in enumerate(groups):
                from_panel = self._starts_at_sum(e.isa)
                start = token.integer_sum(group) if from_panel else start_of_sums(e)
                weights = [block.q[g] for g in columns]
                activations = [token.activations(g) for g in columns]
                sum_ = e.dot(start, weights, activations, integers.limit, integers.signed)
                scale = block.scales[group]
                product = scaled(e, sum_, scale, shift_of_scale(e, scale))
                total = e.fma(product, token.scale(), total)
                if block.minima:
                    total = e.fma(block.minima[group], token.float_sum(group), total)
            result.append(total)
        return result

    def _starts_at_sum(self, isa: Isa) -> bool:
        """Whether sums begin with what makes up for weights that the dot product gets wrong."""
        return not self.has_minima and self.panel_offset(isa) != 0

    def emit_dequantize(self, e: Emitter, place: Place, row: Value, out: Value) -> None:
        block, integers = self.unpack(e, place, row), self.integers_on(e.isa)
        out = e.b.add(out, e.b.mul(row, e.i64(4)))
        for g, q in enumerate(block.q):
            group = g * self.groups // 8
            for j in range(4):
                byte = e.every_fourth(q, j)
                wide = e.b.sext(byte, e.i32v) if integers.signed else e.b.zext(byte, e.i32v)
                wide = e.b.add(wide, e.constant(integers.offset, e.i32v))
                value = e.b.fmul(e.i32_to_f32(wide), block.scales[group])
                if block.minima:
                    value = e.b.fadd(value, block.minima[group])
                e.store(value, out, (4 * g + j) * TILE_ROWS * 4)
