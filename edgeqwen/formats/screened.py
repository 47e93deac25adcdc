"""Formats of a screened head: the high bits of all weights, and the low bits apart from them.

Most rows of the matrix that makes the logits are nowhere near the largest, which the highest 4 bits
of the weights suffice to see (``kernels/screen.py``). These bits and the scales lie in tiles that
are read in order, about half of the bytes; the low bits lie apart, and are looked up where a row is
still in question. Together they are what GGUF's block holds: a product with both gives the bits
that the plain format gives.

Tiles are laid out as Q4_0's are (Q8_0: 288 bytes), or with Q6_K's scales (2336 bytes); apart lie a
4-bit plane for each tile of Q8_0 (256 bytes), a 2-bit plane for each of a tile's blocks of Q6_K
(128 bytes each).
"""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from edgeqwen.formats.base import Place
from edgeqwen.formats.bit_planes import bit_pairs, joined, nibbles, put_nibbles
from edgeqwen.formats.integer import IntegerBlock, IntegerFormat, Integers
from edgeqwen.formats.q6_k import q6_word
from edgeqwen.formats.superblock import SuperblockFormat
from edgeqwen.formats.unpacked import columns_of_groups
from edgeqwen.simd.compile import inline_kernel
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.ops import peek_i16, peek_u8, peek_u32, poke_i16, poke_u8, poke_u32


class ScreenedFormat(IntegerFormat):
    """A weight is (2**low_bits * (high - 8) + low) * scale, high from 0 to 15, low from 0 on."""

    low_bits: int

    @property
    def step(self) -> int:
        """How far one high value is from the next."""
        return 1 << self.low_bits

    @property
    def centre(self) -> float:
        """The mean of the low bits' values, if all are as frequent."""
        return (self.step - 1) / 2

    @property
    def variance(self) -> float:
        """Their variance then."""
        return (self.step**2 - 1) / 12

    @property
    def lines(self) -> int:
        """Lines of 64 bytes that the low bits of a block take.

        Of a block's 8 vectors of weights, line i holds vector i and every ``lines``-th behind it.
        """
        return self.apart_block_bytes // 64

    @property
    def factor_floats(self) -> int:
        """Numbers that ``emit_coarse`` reads for each block of the activations."""
        return 1 + 2 * self.groups

    @abstractmethod
    def scales(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the scales in tiles uint8 [n, tile_bytes]: [n, tile_blocks, groups, 16 rows]."""

    @abstractmethod
    def unpack_high(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        """Emits the unpacking of one part of a block, with the high values for weights."""

    def emit_coarse(
        self, e: Emitter, place: Place, row: Value, panel: Value, factors: Value, sums: list[Value]
    ) -> list[Value]:
        """Emits what one part of a block adds to a row's coarse logit, and to its spread.

        coarse += scale * (factor * (high * activations) + shift), spread += scale**2 * weight:
        ``factors`` is the address of float32 factor, shift [groups], weight [groups], and ``panel``
        of a panel's block of one token.
        """
        block = self.unpack_high(e, place, row)
        coarse, spread = sums
        factor = e.load_f32_splat(factors)
        for group, columns in enumerate(columns_of_groups(self.groups)):
            activations = [e.b.bitcast(e.load_i32_splat(panel, 4 * g), e.i8v) for g in columns]
            weights = [block.q[g] for g in columns]
            dot = e.dot(e.zero(e.i32v), weights, activations, 15, False)
            scale = block.scales[group]
            shift = e.load_f32_splat(factors, 4 + 4 * group)
            coarse = e.fma(e.fma(e.i32_to_f32(dot), factor, shift), scale, coarse)
            weight = e.load_f32_splat(factors, 4 + 4 * self.groups + 4 * group)
            spread = e.fma(e.b.fmul(scale, scale), weight, spread)
        return [coarse, spread]

    def emit_line(
        self, e: Emitter, place: Place, row: Value, panel: Value, factors: Value, coarse: Value
    ) -> Value:
        """Emits what the low bits in one line of 64 bytes change in one part's coarse logits.

        ``place.apart`` is the line's address; ``panel`` is that of the line's first activations in
        the panel's block; ``factors`` is the address of float32 factor, shift [groups]:
        coarse += scale * (factor * (low * activations) + shift).
        """
        scales = self.unpack_high(e, place, row).scales
        line = e.load(e.i8v, e.rows(place.apart, row, 4))
        factor = e.load_f32_splat(factors)
        n = 8 // self.lines // self.groups
        for group in range(self.groups):
            vectors = range(n * group, n * group + n)
            weights = [
                e.and_bytes(e.shift_bytes(line, -self.low_bits * j), self.step - 1) for j in vectors
            ]
            words = [e.load_i32_splat(panel, 4 * self.lines * j) for j in vectors]
            activations = [e.b.bitcast(word, e.i8v) for word in words]
            dot = e.dot(e.zero(e.i32v), weights, activations, self.step - 1, False)
            shift = e.load_f32_splat(factors, 4 + 4 * group)
            coarse = e.fma(e.fma(e.i32_to_f32(dot), factor, shift), scales[group], coarse)
        return coarse


class Q8_0Screened(ScreenedFormat):  # noqa: N801 - the format's own name
    """Q8_0, whose int8 is 16 * (high - 8) + low."""

    name = "Q8_0 screened"
    ggml_type = 8
    low_bits = 4
    block_bytes = 32 + 256
    apart_block_bytes = 256

    def integers_on(self, isa: Isa) -> Integers:
        """Unsigned where the dot product would shift signed ones to unsigned anyway."""
        if isa.dot == "vpdpbusd":
            return Integers(255, signed=False, offset=-128)
        return Integers(128, signed=True)

    def scales(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        halves = np.ascontiguousarray(tiles[:, :32]).view(np.float16)
        return halves.astype(np.float32)[:, None, None]

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source))
        plane = tile + 32 + 4 * row
        put_nibbles(source + 2, 4, plane)
        for g in range(4):
            # From two's complement to what is 8 more.
            poke_u32(plane + 64 * g, peek_u32(plane + 64 * g) ^ 0x88888888)

    @staticmethod
    def pack_row_apart(format_, source, apart, row):  # type: ignore[no-untyped-def]
        put_nibbles(source + 2, 0, apart + 4 * row)

    def unpack_high(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        q = nibbles(e, e.rows(place.block, row, 4), 32)
        return IntegerBlock(q, [e.load_f16_rows(place.block, row)])

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        high, low = e.rows(place.block, row, 4), e.rows(place.apart, row, 4)
        first, second = [], []
        for g in range(4):
            h, l = e.load(e.i8v, high, 32 + 64 * g), e.load(e.i8v, low, 64 * g)  # noqa: E741
            first.append(_halves(e, e.shift_bytes(h, 4), l))
            second.append(_halves(e, h, e.shift_bytes(l, -4)))
        q = first + second
        if self.integers_on(e.isa).signed:
            q = [e.b.xor(v, e.constant(-128, e.i8v)) for v in q]
        return IntegerBlock(q, [e.load_f16_rows(place.block, row)])


def _halves(e: Emitter, high: Value, low: Value) -> Value:
    """Emits bytes of the high nibbles of one vector and the low nibbles of another."""
    return e.b.or_(e.and_bytes(high, -16), e.and_bytes(low, 15))


@inline_kernel
def _low_pairs(low, high, k, i):  # type: ignore[no-untyped-def]
    """The i-th of two words of a 2-bit plane, of the lowest bits of Q6_K's 32 columns."""
    word = 0
    for g in range(i, 8, 2):
        word |= (q6_word(low, high, k, g) & 0x03030303) << (2 * (g // 2))
    return word


class Q6_KScreened(ScreenedFormat, SuperblockFormat):  # noqa: N801 - the format's own name
    """Q6_K, whose weight q - 32 is 4 * (high - 8) + low."""

    name = "Q6_K screened"
    ggml_type = 14
    low_bits = 2
    block_bytes = 32 + 256
    apart_block_bytes = 128
    integers = Integers(63, signed=False, offset=-32)
    groups = 2

    def scales(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        d = np.ascontiguousarray(tiles[:, :32]).view(np.float16).astype(np.float32)
        blocks = tiles[:, 32:].reshape(len(tiles), 8, self.block_bytes)[:, :, :32]
        whole = np.ascontiguousarray(blocks).view(np.int8).reshape(len(tiles), 8, 2, 16)
        return whole.astype(np.float32) * d[:, None, None]

    @staticmethod
    def pack_row(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
        poke_i16(tile + 2 * row, peek_i16(source + 208))
        for s in range(8):
            n, k = s // 4, s % 4
            block = tile + 32 + 288 * s
            for i in range(2):
                poke_u8(block + 16 * i + row, peek_u8(source + 192 + 2 * s + i))
            low, high = source + 64 * n + 32 * (k % 2), source + 128 + 32 * n
            for g in range(4):
                first = (q6_word(low, high, k, g) >> 2) & 0x0F0F0F0F
                second = (q6_word(low, high, k, g + 4) >> 2) & 0x0F0F0F0F
                poke_u32(block + 32 + 4 * row + 64 * g, first | (second << 4))

    @staticmethod
    def pack_row_apart(format_, source, apart, row):  # type: ignore[no-untyped-def]
        for s in range(8):
            n, k = s // 4, s % 4
            low, high = source + 64 * n + 32 * (k % 2), source + 128 + 32 * n
            for i in range(2):
                poke_u32(apart + 128 * s + 4 * row + 64 * i, _low_pairs(low, high, k, i))

    def unpack_high(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        q = nibbles(e, e.rows(place.block, row, 4), 32)
        return IntegerBlock(q, self.signed_scales(e, place, row))

    def unpack(self, e: Emitter, place: Place, row: Value) -> IntegerBlock:
        block = self.unpack_high(e, place, row)
        high = [e.shift_bytes(v, 2) for v in block.q]
        low = bit_pairs(e, e.rows(place.apart, row, 4), 0)
        return IntegerBlock(joined(e, high, low), block.scales)


LEAST_ROWS = 16384
"""With fewer rows, what must be computed exactly is too large a part for a screen to pay."""

SCREENED: dict[int, ScreenedFormat] = {f.ggml_type: f for f in (Q8_0Screened(), Q6_KScreened())}
"""The formats that a head is screened in, by the GGML type number of the file."""
