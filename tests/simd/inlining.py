"""A function of addresses with a branch, and a kernel that calls it in a loop of known length."""

from edgeqwen.simd.compile import inline_kernel, kernel
from edgeqwen.simd.ops import peek_u8, poke_u8


@inline_kernel
def mixed(address, i):  # type: ignore[no-untyped-def]
    if i < 4:
        return peek_u8(address + i) & 63
    return (peek_u8(address + i + 4) & 15) | ((peek_u8(address + i - 4) >> 6) << 4)


@kernel
def mix(source, target):  # type: ignore[no-untyped-def]
    for i in range(8):
        poke_u8(target + i, mixed(source, i))
