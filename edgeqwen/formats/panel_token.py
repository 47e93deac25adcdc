"""One token of a panel's block, as micro-kernels read it: from memory, or as it was expanded.

Without broadcasts inside other instructions (AVX2), GEMM first writes each broadcast of a stretch
of a panel out as a whole vector, and loads those as operands: ``Tiling.expands``.
"""

from typing import TYPE_CHECKING

from edgeqwen.simd.emitter import Emitter, Value

if TYPE_CHECKING:
    from edgeqwen.formats.base import Tiling


class PanelToken:
    """Loads of the t-th token of the integer panel block at ``panel``."""

    def __init__(self, e: Emitter, tiling: "Tiling", panel: Value, t: int) -> None:
        self._e, self._tiling, self.panel, self._t = e, tiling, panel, t

    def activations(self, g: int) -> Value:
        """Four columns of the block, 4g and following, for every row.

        <4*lanes x i8>, or two vectors <2*lanes x i16> where the tiling widens them.
        """
        if self._tiling.widens:
            return [self._word(self._e.i16v, 0, 2 * g + i) for i in range(2)]
        word = self._word(self._e.i32v, 32 * self._t + 4 * g, g)
        return self._e.b.bitcast(word, self._e.i8v)

    def at(self, panel: Value) -> "PanelToken":
        """The same token of the panel block at another address."""
        return PanelToken(self._e, self._tiling, panel, self._t)

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


def expand_block(e: Emitter, tiling: "Tiling", block: Value, target: Value) -> None:
    """Emits a copy of a panel block in memory to ``target``, a vector for each word."""
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
