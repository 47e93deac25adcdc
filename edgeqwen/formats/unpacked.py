"""Unpacked blocks of integer formats, and their product with a panel of many tokens.

GEMM unpacks a chunk's tiles once and then multiplies them by panel after panel, so that unpacking
costs next to nothing, and all formats are multiplied alike. Of each block of 32 columns and each
part of a tile there are, one vector after the other:

- 8 vectors of bytes, four columns of every row each, as the dot product takes them;
- for each group of columns the scales, float32 [lanes], and their shifts (``formats/sums.py``);
- for each group the minima, float32 [lanes], where the format has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeqwen.formats.base import Tiling
from edgeqwen.formats.panel_token import PanelToken
from edgeqwen.formats.sums import scaled, shift_of_scale, start_of_sums
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.running_dots import GatheredDots, InterleavedDots, SignedDots, UnsignedDots

VECTORS = 8
"""Vectors of weights in a block."""


def columns_of_groups(groups: int) -> list[range]:
    """Returns for each group of columns which of a block's vectors of weights are its own."""
    n = VECTORS // groups
    return [range(n * group, n * group + n) for group in range(groups)]


@dataclass(frozen=True, slots=True)
class UnpackedBlocks:
    """What unpacked blocks hold, on one instruction set.

    Their bytes are in [-limit, limit] if ``signed``, else in [0, limit], for ``groups`` groups of
    columns with a scale each. Sums begin with the panel's where they ``start_from_panel``.
    """

    limit: int
    signed: bool
    groups: int
    has_minima: bool
    start_from_panel: bool

    @property
    def vectors(self) -> int:
        """How many vectors a block takes."""
        return VECTORS + self.groups * (2 + self.has_minima)

    def emit_store(
        self,
        e: Emitter,
        target: Value,
        q: Sequence[Value],
        scales: Sequence[Value],
        minima: Sequence[Value],
    ) -> None:
        """Emits the writing of one block to ``target``."""
        factors = [x for scale in scales for x in (scale, shift_of_scale(e, scale))]
        for i, vector in enumerate((*q, *factors, *minima)):
            e.store(vector, target, _at(e, i))

    def emit_product(
        self, e: Emitter, tiling: Tiling, block: Value, panel: Value, totals: Sequence[Value]
    ) -> list[Value]:
        """Emits totals[token] += rows of the block * the panel's block."""
        tokens = [PanelToken(e, tiling, panel, t) for t in range(tiling.n_used)]
        result = list(totals)
        for group in range(self.groups):
            if group and tiling.isa.fences:
                # Not before the sums of the first group are out of the registers.
                *result, block = e.fence([*result, block])
            sums = self._sums(e, tiling, block, group, tokens)
            first = VECTORS + 2 * group
            scale, shift = (e.load(e.f32v, block, _at(e, first + i)) for i in range(2))
            for t, token in enumerate(tokens):
                product = scaled(e, sums[t], scale, shift)
                result[t] = e.fma(product, token.scale(), result[t])
            if self.has_minima:
                minimum = e.load(e.f32v, block, _at(e, VECTORS + 2 * self.groups + group))
                for t, token in enumerate(tokens):
                    result[t] = e.fma(minimum, token.float_sum(group), result[t])
        return result

    def _sums(
        self, e: Emitter, tiling: Tiling, block: Value, group: int, tokens: Sequence[PanelToken]
    ) -> Sequence[Value]:
        """Emits a group's sums of products, <lanes x i32> for each token."""
        dots = self._running_dots(e, tiling, group, tokens)
        for g in columns_of_groups(self.groups)[group]:
            block = dots.fence(block)
            weight = e.load(e.i8v, block, _at(e, g))
            dots.add(weight, [token.activations(g) for token in tokens])
        sums = dots.result()
        if not tiling.expands:
            return sums
        # Panels are as large as they are late: what sums begin with is added in the end.
        panel = dots.fence(tokens[0].panel)
        starts = [self._start(e, token.at(panel), group) for token in tokens]
        return [e.b.add(start, sum_) for start, sum_ in zip(starts, sums, strict=True)]

    def _running_dots(
        self, e: Emitter, tiling: Tiling, group: int, tokens: Sequence[PanelToken]
    ) -> GatheredDots | InterleavedDots | SignedDots | UnsignedDots:
        """Returns how the products of a group of columns are summed."""
        if tiling.widens:
            return SignedDots(e, len(tokens))
        if tiling.expands:
            return UnsignedDots(e, len(tokens), self.limit)
        kind = InterleavedDots if e.isa.dot == "vpdpbusd" else GatheredDots
        starts = [self._start(e, token, group) for token in tokens]
        return kind(e, starts, self.limit, self.signed)

    def _start(self, e: Emitter, token: PanelToken, group: int) -> Value:
        return token.integer_sum(group) if self.start_from_panel else start_of_sums(e)


def _at(e: Emitter, i: int) -> int:
    """Where the i-th vector of a block is."""
    return 4 * e.isa.lanes * i
