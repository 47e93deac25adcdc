"""The integer types by their numbers: what is searched for, and how it is stored."""

from collections.abc import Callable
from dataclasses import dataclass

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.encode import layouts
from edgeqwen.quant.encode.layouts import Bytes, Fit

# Source: GGML's definition of IQ4_NL and IQ4_XS.
_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a type turns weights into codes: weight = scale * level, or scale * level - minimum.

    ``size`` weights share a scale. Levels are the whole numbers from ``lowest`` to ``highest``, or
    those of the ``codebook``. In superblocks, scales are multiples of d within ``multiples``, and
    minima of dmin; elsewhere each is a float16. ``factors`` are the bytes of a block where its
    float16 stand.
    """

    type: GgmlType
    size: int
    lowest: int
    highest: int
    write: Callable[[Fit, Bytes, Bytes], None]
    factors: tuple[int, ...]
    has_minima: bool = False
    multiples: tuple[int, int] | None = None
    codebook: tuple[int, ...] = ()

    @property
    def groups(self) -> int:
        """Scales in a block."""
        return self.type.block_size // self.size


SCHEMES = {
    scheme.type: scheme
    for scheme in (
        Scheme(GgmlType.Q4_0, 32, -8, 7, layouts.write_q4_0, (0,)),
        Scheme(GgmlType.Q5_0, 32, -16, 15, layouts.write_q5_0, (0,)),
        Scheme(GgmlType.Q4_1, 32, 0, 15, layouts.write_q4_1, (0, 2), has_minima=True),
        Scheme(GgmlType.Q5_1, 32, 0, 31, layouts.write_q5_1, (0, 2), has_minima=True),
        Scheme(GgmlType.Q2_K, 16, 0, 3, layouts.write_q2_k, (80, 82), True, (0, 15)),
        Scheme(GgmlType.Q4_K, 32, 0, 15, layouts.write_q4_k, (0, 2), True, (0, 63)),
        Scheme(GgmlType.Q5_K, 32, 0, 31, layouts.write_q5_k, (0, 2), True, (0, 63)),
        Scheme(GgmlType.Q3_K, 16, -4, 3, layouts.write_q3_k, (108,), multiples=(-32, 31)),
        Scheme(GgmlType.Q6_K, 16, -32, 31, layouts.write_q6_k, (208,), multiples=(-128, 127)),
        Scheme(GgmlType.IQ4_NL, 32, -127, 113, layouts.write_q4_0, (0,), codebook=_IQ4),
        Scheme(
            GgmlType.IQ4_XS,
            *(32, -127, 113, layouts.write_iq4_xs, (0,)),
            multiples=(-32, 31),
            codebook=_IQ4,
        ),
    )
}
