"""Bits of weights as tiles keep them, in planes of 6, 4, 2 or 1 bits, and their unpacking.

A plane holds some bits of each of a block's 16 rows and 32 columns. Vector g of a block (columns 4g
to 4g + 3 of every row, g from 0 to 7) finds its bits

- in 6 bits, 384 bytes: in vector 3 * (g // 4) + g % 4 of 64 bytes, bits 0 to 5, for g % 4 < 3;
  every fourth in the upper two bits of those three, the lowest ones in the first;
- in 4 bits, 256 bytes: in vector g % 4 of 64 bytes, low nibbles for g < 4, high ones for the rest;
- in 2 bits, 128 bytes: in vector g % 2 of 64 bytes, bits 2 * (g // 2) and following;
- in 1 bit, 64 bytes: in the one vector of 64 bytes, bit g.
"""

from edgeqwen.simd.compile import inline_kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.ops import peek_u32, poke_u32

# Emitting: ``plane`` is the address of a part's first row, 4 bytes a row into the plane.


def six_bits(e: Emitter, plane: Value, offset: int) -> list[Value]:
    """Emits the 8 vectors of a 6-bit plane, values 0 to 63."""
    result = []
    for half in range(2):
        raw = [e.load(e.i8v, plane, offset + 64 * (3 * half + i)) for i in range(3)]
        fourth = [e.and_bytes(e.shift_bytes(v, 2 * i - 6), 3 << 2 * i) for i, v in enumerate(raw)]
        result += [e.and_bytes(v, 63) for v in raw]
        result.append(e.b.or_(e.b.or_(fourth[0], fourth[1]), fourth[2]))
    return result


def nibbles(e: Emitter, plane: Value, offset: int = 0) -> list[Value]:
    """Emits the 8 vectors of a 4-bit plane, values 0 to 15."""
    raw = [e.load(e.i8v, plane, offset + 64 * g) for g in range(4)]
    low = [e.and_bytes(v, 15) for v in raw]
    return low + [e.and_bytes(e.shift_bytes(v, -4), 15) for v in raw]


def bit_pairs(e: Emitter, plane: Value, offset: int, at: int = 0) -> list[Value]:
    """Emits the 8 vectors of a 2-bit plane, the bits at ``at`` and ``at + 1`` of every byte."""
    raw = [e.load(e.i8v, plane, offset + 64 * i) for i in range(2)]
    return [e.and_bytes(e.shift_bytes(raw[g % 2], at - 2 * (g // 2)), 3 << at) for g in range(8)]


def single_bits(e: Emitter, plane: Value, offset: int, at: int) -> list[Value]:
    """Emits the 8 vectors of a 1-bit plane, the bit at ``at`` of every byte."""
    raw = e.load(e.i8v, plane, offset)
    return [e.and_bytes(e.shift_bytes(raw, at - g), 1 << at) for g in range(8)]


def joined(e: Emitter, *planes: list[Value]) -> list[Value]:
    """Emits the union of planes, vector by vector."""
    first, *others = planes
    for other in others:
        first = [e.b.or_(a, b) for a, b in zip(first, other, strict=True)]
    return first


# Packing: a row's 32 columns come as 8 words of 4 bytes, one byte a column, word g at
# ``source + 4 * g``, of which ``(word >> shift) & mask`` counts. ``plane`` is the row's place.


@inline_kernel
def put_six_bits(word, fourth, g, plane):  # type: ignore[no-untyped-def]
    """Puts word g, values 0 to 63 in its bytes, and a part of word g | 3 into a 6-bit plane."""
    upper = ((fourth >> (2 * (g % 4))) & 0x03030303) << 6
    poke_u32(plane + 64 * (3 * (g // 4) + g % 4), word | upper)


@inline_kernel
def put_nibbles(source, shift, plane):  # type: ignore[no-untyped-def]
    """Puts 4 bits of every byte at ``shift`` into a 4-bit plane."""
    for g in range(4):
        low = (peek_u32(source + 4 * g) >> shift) & 0x0F0F0F0F
        high = (peek_u32(source + 4 * g + 16) >> shift) & 0x0F0F0F0F
        poke_u32(plane + 64 * g, low | (high << 4))


@inline_kernel
def put_bit_pairs(source, shift, plane):  # type: ignore[no-untyped-def]
    """Puts 2 bits of every byte at ``shift`` into a 2-bit plane."""
    for i in range(2):
        word = 0
        for g in range(i, 8, 2):
            word |= ((peek_u32(source + 4 * g) >> shift) & 0x03030303) << (2 * (g // 2))
        poke_u32(plane + 64 * i, word)


@inline_kernel
def put_single_bits(source, shift, plane):  # type: ignore[no-untyped-def]
    """Puts 1 bit of every byte at ``shift`` into a 1-bit plane."""
    word = 0
    for g in range(8):
        word |= ((peek_u32(source + 4 * g) >> shift) & 0x01010101) << g
    poke_u32(plane, word)


@inline_kernel
def put_bit_string(bits, plane):  # type: ignore[no-untyped-def]
    """Puts 32 bits, bit i for column i, into a 1-bit plane."""
    word = 0
    for j in range(4):
        # Every fourth bit from j on, moved side by side: columns j, 4 + j, 8 + j, ...
        x = (bits >> j) & 0x11111111
        x = (x | (x >> 3)) & 0x03030303
        x = (x | (x >> 6)) & 0x000F000F
        x = (x | (x >> 12)) & 0xFF
        word |= x << (8 * j)
    poke_u32(plane, word)


@inline_kernel
def copy_words(source, n, plane):  # type: ignore[no-untyped-def]
    """Puts n words of a row side by side with the other rows' words."""
    for g in range(n):
        poke_u32(plane + 64 * g, peek_u32(source + 4 * g))
