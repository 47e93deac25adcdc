"""Dot products of the same weights with many tokens, on AVX2: one sum for each, in registers.

Weights come one vector after the other, and each is multiplied by all tokens' activations before
the next is unpacked. LLVM would rather unpack all of them first, and run out of registers: a fence
between them keeps it from doing so.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeqwen.simd.emitter import Emitter, Value


class UnsignedDots:
    """Sums of unsigned weights times int8 activations, in int16 as long as these have room.

    ``limit`` is the largest weight.
    """

    def __init__(self, e: "Emitter", n_tokens: int, limit: int) -> None:
        self._e = e
        self._sums: list[Any] = [None] * n_tokens
        self._totals: list[Any] = [None] * n_tokens
        self._room = max(1, 32767 // (2 * 127 * limit))
        self._taken = 0

    def fence(self, address: "Value") -> "Value":
        """Returns the address; what is loaded through it is loaded after all that was added."""
        if self._taken:
            *self._sums, address = self._e.fence([*self._sums, address])
        elif self._totals[0] is not None:
            *self._totals, address = self._e.fence([*self._totals, address])
        return address

    def add(self, weight: "Value", activations: Sequence["Value"]) -> None:
        """Adds four columns: <4*lanes x i8> weights, and as many activations for each token."""
        e = self._e
        for t, some in enumerate(activations):
            product = e.call("llvm.x86.avx2.pmadd.ub.sw", e.i16v, weight, some)
            self._sums[t] = e.b.add(self._sums[t], product) if self._taken else product
        self._taken += 1
        if self._taken == self._room:
            self._widen()

    def result(self) -> list["Value"]:
        """Returns the sums, <lanes x i32> for each token."""
        if self._taken:
            self._widen()
        return self._totals

    def _widen(self) -> None:
        e = self._e
        for t, sum_ in enumerate(self._sums):
            wide = e.call("llvm.x86.avx2.pmadd.wd", e.i32v, sum_, e.constant(1, e.i16v))
            before = self._totals[t]
            self._totals[t] = wide if before is None else e.b.add(before, wide)
        self._taken = 0


class SignedDots:
    """Sums of signed weights times activations that are int16 already, two columns at a time.

    AVX2's product of bytes takes signed weights only by a detour for every activation.
    """

    def __init__(self, e: "Emitter", n_tokens: int) -> None:
        self._e = e
        self._totals: list[Any] = [None] * n_tokens

    def fence(self, address: "Value") -> "Value":
        """Returns the address; what is loaded through it is loaded after all that was added."""
        if self._totals[0] is None:
            return address
        *self._totals, address = self._e.fence([*self._totals, address])
        return address

    def add(self, weight: "Value", activations: Sequence[Sequence["Value"]]) -> None:
        """Adds four columns: <4*lanes x i8> weights; two vectors of int16 for each token."""
        e = self._e
        for i, half in enumerate(e.halves_of_words(weight)):
            for t, some in enumerate(activations):
                product = e.call("llvm.x86.avx2.pmadd.wd", e.i32v, half, some[i])
                before = self._totals[t]
                self._totals[t] = product if before is None else e.b.add(before, product)

    def result(self) -> list["Value"]:
        """Returns the sums, <lanes x i32> for each token."""
        return self._totals
