"""Every tensor type that a GGUF file can name: its number, its block size and its size in bytes."""

from collections.abc import Sequence
from enum import IntEnum
from math import prod

from edgeqwen.errors import OptionError


class GgmlType(IntEnum):
    """A tensor type by its number in the file; knowing its size doesn't mean that it can run.

    ``block_size`` is the number of weights that are stored together, ``type_size`` the bytes that
    such a block takes. Source: the GGML project's list of types, which GGUF files refer to.
    """

    block_size: int
    type_size: int

    def __new__(cls, number: int, block_size: int = 1, type_size: int = 1) -> "GgmlType":
        member = int.__new__(cls, number)
        member._value_ = number
        member.block_size = block_size
        member.type_size = type_size
        return member

    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q8_1 = 9, 32, 40
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    Q8_K = 15, 256, 292
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18

    @property
    def bits_per_weight(self) -> float:
        """The mean number of bits that one weight takes."""
        return self.type_size * 8 / self.block_size

    def n_bytes(self, shape: Sequence[int]) -> int:
        """Returns the bytes that a tensor of this shape (numpy order, columns last) takes.

        Raises OptionError where the columns don't fill whole blocks.
        """
        if shape[-1] % self.block_size:
            raise OptionError(
                f"{shape[-1]} columns is not a multiple of {self.block_size}, "
                f"which {self.name} needs"
            )
        return prod(shape) // self.block_size * self.type_size


BITS_IN_MEMORY = {
    **dict.fromkeys(
        (
            *(GgmlType.IQ3_XXS, GgmlType.IQ3_S),
            *(GgmlType.IQ2_XXS, GgmlType.IQ2_XS, GgmlType.IQ2_S),
            *(GgmlType.IQ1_S, GgmlType.IQ1_M),
        ),
        4.5625,
    ),
    GgmlType.TQ1_0: 2.0625,
}
"""Bits that a weight takes in memory, for types that are repacked into a wider layout to run."""

WITHDRAWN_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
"""Numbers that once meant a type and that GGML has given up: no current tool can read them."""
