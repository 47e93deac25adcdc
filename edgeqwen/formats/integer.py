"""Formats whose weights are small integers: what they unpack to, and the product with a panel.

A weight is (integer + offset) * scale, or integer * scale + minimum, in float32. Scales and minima
belong to groups of 32 columns, or of 16 where ``groups`` is 2. Minima are multiplied by the panel's
scaled sums; what the dot products need added to every weight is where their sums start.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from edgeqwen.formats.base import TILE_ROWS, Format, Place, Tiling
from edgeqwen.formats.panel import Panel
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
        # 8 unpacked weight vectors, an accumulator a token, and room for the dot product.
        return {16: 4, 32: 12}[isa.registers]

    def panel_parts(self, isa: Isa) -> int:
        return 1

    def emit_expand(self, e: Emitter, tiling: Tiling, block: Value, target: Value) -> None:
        n, words = tiling.n_tokens, tiling.panel.token_bytes // 4
        for t in range(n):
            places = [32 * t + 4 * g for g in range(8)]
            places += [32 * n + 4 * (i * n + t) for i in range(words - 8)]
            for i, offset in enumerate(places):
                vector = e.load_i32_splat(block, offset)
                e.store(vector, target, 4 * e.isa.lanes * (words * t + i))

    def emit_step(
        self,
        e: Emitter,
        tiling: Tiling,
        place: Place,
        rows: Sequence[Value],
        panel: Value,
        totals: list[Value],
    ) -> list[Value]:
        result = list(totals)
        for part, row in enumerate(rows):
            block = self.unpack(e, place, row)
            for t in range(tiling.n_tokens):
                i = part * tiling.n_tokens + t
                token = _PanelToken(e, tiling, panel, t)
                result[i] = self._add_product(e, block, token, result[i])
        return result

    def _add_product(
        self, e: Emitter, block: IntegerBlock, token: "_PanelToken", total: Value
    ) -> Value:
        """Emits total + block * token."""
        integers, n = self.integers_on(e.isa), 8 // self.groups
        starts_at_sum = not self.has_minima and self.panel_offset(e.isa) != 0
        dots = []
        for group in range(self.groups):
            start = token.integer_sum(group) if starts_at_sum else e.zero(e.i32v)
            here = slice(n * group, n * group + n)
            q, activations = block.q[here], [token.activations(g) for g in range(8)[here]]
            dot = e.dot(start, q, activations, integers.limit, integers.signed)
            dots.append(e.i32_to_f32(dot))
        if self.groups == 1:
            total = e.fma(dots[0], e.b.fmul(block.scales[0], token.scale()), total)
        else:
            first, second = block.scales
            product = e.fma(dots[1], second, e.b.fmul(dots[0], first))
            total = e.fma(product, token.scale(), total)
        for group, minimum in enumerate(block.minima):
            total = e.fma(minimum, token.float_sum(group), total)
        return total

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


class _PanelToken:
    """Loads of one token of a panel's block, as it is in memory or as it was expanded."""

    def __init__(self, e: Emitter, tiling: Tiling, panel: Value, t: int) -> None:
        self._e, self._tiling, self._panel, self._t = e, tiling, panel, t

    def activations(self, g: int) -> Value:
        """Four columns of the block, 4g and following, for every row: <4*lanes x i8>."""
        word = self._word(self._e.i32v, 32 * self._t + 4 * g, g)
        return self._e.b.bitcast(word, self._e.i8v)

    def scale(self) -> Value:
        return self._word(self._e.f32v, self._after(0), 8)

    def integer_sum(self, group: int) -> Value:
        return self._word(self._e.i32v, self._after(1 + group), 9 + group)

    def float_sum(self, group: int) -> Value:
        return self._word(self._e.f32v, self._after(1 + group), 9 + group)

    def _after(self, i: int) -> int:
        return 32 * self._tiling.n_tokens + 4 * (i * self._tiling.n_tokens + self._t)

    def _word(self, type_: Value, offset: int, i: int) -> Value:
        """4 bytes at ``offset`` of a panel in memory, the token's i-th vector when expanded."""
        e, tiling = self._e, self._tiling
        if tiling.expands:
            words = tiling.panel.token_bytes // 4
            return e.load(type_, self._panel, 4 * e.isa.lanes * (words * self._t + i))
        if type_ is e.f32v:
            return e.load_f32_splat(self._panel, offset)
        return e.load_i32_splat(self._panel, offset)
