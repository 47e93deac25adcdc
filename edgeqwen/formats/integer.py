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
from edgeqwen.simd.running_dots import GatheredDots, InterleavedDots, SignedDots, UnsignedDots


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
            # A sum and a total for each token, one vector of weights, its masks, a product. What
            # is expanded for a tile should leave room for others in the first-level cache.
            return 4 if self.is_signed(isa) and self.tile_blocks > 1 else 6
        if isa.registers == 16:
            # Without a fence between them, 8 vectors of weights are unpacked at once.
            return 6 if isa.dot == "vpdpbusd" else 4
        # A total for each token, a sum for each group, and room for weights and masks.
        return 12 if self.groups == 1 else 8

    def panel_parts(self, isa: Isa) -> int:
        return 1

    def emit_expand(self, e: Emitter, tiling: Tiling, block: Value, target: Value) -> None:
        n, words = tiling.n_tokens, tiling.words
        for t in range(n):
            places = [32 * t + 4 * g for g in range(8)]
            places += [32 * n + 4 * (i * n + t) for i in range(tiling.panel.token_bytes // 4 - 8)]
            vectors = []
            for i, offset in enumerate(places):
                vector = e.load_i32_splat(block, offset)
                vectors += e.halves_of_words(vector) if i < 8 and tiling.widens else [vector]
            for i, vector in enumerate(vectors):
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
        n = tiling.n_tokens
        tokens = [_PanelToken(e, tiling, panel, t) for t in range(n)]
        result: list[Value] = []
        for part, row in enumerate(rows):
            sums = self._sums(e, tiling, place, row, tokens)
            block = self.unpack(e, place, row)
            result += self._scaled(e, block, sums, tokens, totals[part * n : part * n + n])
        return result

    def _sums(
        self,
        e: Emitter,
        tiling: Tiling,
        place: Place,
        row: Value,
        tokens: Sequence["_PanelToken"],
    ) -> list[list[Value]]:
        """Emits the int32 sums of weights times activations: [groups][tokens]."""
        result = []
        for group, columns in enumerate(self._columns()):
            dots = self._running_dots(e, tiling, group, tokens)
            address, q = place.block, self.unpack(e, place, row).q
            for g in columns:
                fenced = dots.fence(place.block)
                if fenced is not address:
                    # Of this, all but the one vector is dropped again.
                    address, q = fenced, self.unpack(e, place.behind(e, fenced), row).q
                dots.add(q[g], [token.activations(g) for token in tokens])
            sums = dots.result()
            if tiling.expands and self._starts_at_sum(e):
                panel = dots.fence(tokens[0].panel)
                starts = [token.in_panel(panel).integer_sum(group) for token in tokens]
                sums = [e.b.add(start, sum_) for start, sum_ in zip(starts, sums, strict=True)]
            result.append(sums)
        return result

    def _running_dots(
        self, e: Emitter, tiling: Tiling, group: int, tokens: Sequence["_PanelToken"]
    ) -> GatheredDots | InterleavedDots | SignedDots | UnsignedDots:
        """Returns how the products of a group of columns are summed."""
        integers = self.integers_on(e.isa)
        if tiling.widens:
            return SignedDots(e, len(tokens))
        if tiling.expands:
            return UnsignedDots(e, len(tokens), integers.limit)
        from_sum, zero = self._starts_at_sum(e), e.zero(e.i32v)
        starts = [token.integer_sum(group) if from_sum else zero for token in tokens]
        interleaved = e.isa.dot == "vpdpbusd" and tiling.n_tokens > 1
        kind = InterleavedDots if interleaved else GatheredDots
        return kind(e, starts, integers.limit, integers.signed)

    def _columns(self) -> list[range]:
        """For each group, which of a block's 8 vectors of weights are its own."""
        n = 8 // self.groups
        return [range(n * group, n * group + n) for group in range(self.groups)]

    def _starts_at_sum(self, e: Emitter) -> bool:
        """Whether sums begin with what makes up for weights that the dot product gets wrong."""
        return not self.has_minima and self.panel_offset(e.isa) != 0

    def _scaled(
        self,
        e: Emitter,
        block: IntegerBlock,
        sums: Sequence[Sequence[Value]],
        tokens: Sequence["_PanelToken"],
        totals: Sequence[Value],
    ) -> list[Value]:
        """Emits total + sums * scales + minima for every token; sums are [groups][tokens]."""
        result = []
        for t, (token, total) in enumerate(zip(tokens, totals, strict=True)):
            dots = [e.i32_to_f32(group[t]) for group in sums]
            if self.groups == 1:
                total = e.fma(dots[0], e.b.fmul(block.scales[0], token.scale()), total)
            else:
                first, second = block.scales
                product = e.fma(dots[1], second, e.b.fmul(dots[0], first))
                total = e.fma(product, token.scale(), total)
            for group, minimum in enumerate(block.minima):
                total = e.fma(minimum, token.float_sum(group), total)
            result.append(total)
        return result

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
        self._e, self._tiling, self.panel, self._t = e, tiling, panel, t

    def activations(self, g: int) -> Value:
        """Four columns of the block, 4g and following, for every row.

        <4*lanes x i8>, or two vectors <2*lanes x i16> where the tiling widens them.
        """
        if self._tiling.widens:
            return [self._word(self._e.i16v, 0, 2 * g + i) for i in range(2)]
        word = self._word(self._e.i32v, 32 * self._t + 4 * g, g)
        return self._e.b.bitcast(word, self._e.i8v)

    def in_panel(self, panel: Value) -> "_PanelToken":
        """The same token of the panel at another address."""
        return _PanelToken(self._e, self._tiling, panel, self._t)

    def scale(self) -> Value:
        return self._after(self._e.f32v, 0)

    def integer_sum(self, group: int) -> Value:
        return self._after(self._e.i32v, 1 + group)

    def float_sum(self, group: int) -> Value:
        return self._after(self._e.f32v, 1 + group)

    def _after(self, type_: Value, i: int) -> Value:
        """The i-th number behind the activations."""
        n = self._tiling.n_tokens
        return self._word(type_, 32 * n + 4 * (i * n + self._t), self._tiling.activation_words + i)

    def _word(self, type_: Value, offset: int, i: int) -> Value:
        """4 bytes at ``offset`` of a panel in memory, the token's i-th vector when expanded."""
        e, tiling = self._e, self._tiling
        if tiling.expands:
            at = 4 * e.isa.lanes * (tiling.words * self._t + i)
            return e.load(type_, self.panel, at)
        if type_ is e.f32v:
            return e.load_f32_splat(self.panel, offset)
        return e.load_i32_splat(self.panel, offset)
