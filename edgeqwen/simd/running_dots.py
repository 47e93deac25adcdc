"""Dot products of the same weights with many tokens, a sum for each token in registers.

Weights come one vector after the other. On x86, each is multiplied by all tokens' activations
before the next is loaded: the tokens' sums don't wait for one another, and few weights take
registers at a time. LLVM would rather go token by token: a fence between the vectors keeps it from
doing so.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeqwen.simd.emitter import Emitter, Value


class GatheredDots:
    """Sums that begin once all weights are there, in the order that LLVM thinks best.

    ``starts``, <lanes x i32> for each token, are what they begin with; for ``limit`` and
    ``signed`` see ``Emitter.dot``.
    """

    def __init__(self, e: "Emitter", starts: Sequence["Value"], limit: int, signed: bool) -> None:
        self._e, self._starts, self._range = e, starts, (limit, signed)
        self._weights: list[Any] = []
        self._activations: list[list[Any]] = [[] for _ in starts]

    def fence(self, address: "Value") -> "Value":
        """Returns the address: nothing has to be loaded later than anything else."""
        return address

    def add(self, weight: "Value", activations: Sequence["Value"]) -> None:
        """Adds four columns: <4*lanes x i8> weights, and as many activations for each token."""
        self._weights.append(weight)
        for known, some in zip(self._activations, activations, strict=True):
            known.append(some)

    def result(self) -> list["Value"]:
        """Returns the sums, <lanes x i32> for each token."""
        return [
            self._e.dot(start, self._weights, activations, *self._range)
            for start, activations in zip(self._starts, self._activations, strict=True)
        ]


class InterleavedDots:
    """Sums to which an instruction adds a product (AVX-512-VNNI, AVX-VNNI): see GatheredDots."""

    def __init__(self, e: "Emitter", starts: Sequence["Value"], limit: int, signed: bool) -> None:
        self._e, self._sums, self._range = e, list(starts), (limit, signed)
        self._is_first = True

    def fence(self, address: "Value") -> "Value":
        """Returns the address; what is loaded through it is loaded after all that was added."""
        if not self._is_first:
            *self._sums, address = self._e.fence([*self._sums, address])
        return address

    def add(self, weight: "Value", activations: Sequence["Value"]) -> None:
        """Adds four columns: <4*lanes x i8> weights, and as many activations for each token."""
        self._is_first = False
        for t, some in enumerate(activations):
            self._sums[t] = self._e.dot(self._sums[t], [weight], [some], *self._range)

    def result(self) -> list["Value"]:
        """Returns the sums, <lanes x i32> for each token."""
        return self._sums


class UnsignedDots:
    """Sums of unsigned weights times int8 activations on AVX2, in int16 while these have room.

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
    """Sums of signed weights times activations that are int16 already, two at a time, on AVX2.

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
