"""What a format is: a tile layout, and the code that multiplies a tile by a panel of activations.

A tile holds 16 rows of a weight matrix over as many columns as a GGUF block has: 32, or the 256 of
a superblock. It is a header, with what all its columns share, and then one block after the other of
32 columns each. Rows are interleaved: a vector holds the same four columns (int8) or the same
column (float) of neighbouring rows, so that one broadcast of activations feeds all rows and nothing
is ever summed across lanes. An instruction set with shorter vectors takes a block in ``Isa.parts``
parts, each a group of ``Isa.lanes`` rows.

A matrix [n_rows, n_columns] is stored as [ceil(n_rows / 16)][n_columns / tile columns] tiles; rows
past the end are zero. What some formats keep apart (``formats/screened.py``) lies before the first
tile, in reverse order of the tiles. ``formats/panel.py`` tells what a panel of activations is.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.formats.panel import Panel
from edgeqwen.ggml_types import GgmlType
from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.isa import Isa
from edgeqwen.simd.token import Token

TILE_ROWS = 16
BLOCK_COLUMNS = 32
# Half of fewer tokens would keep a processor waiting for its own sums.
LEAST_HALVED = 6


class Format(Token, ABC):
    """A GGUF tensor type that kernels can run. A format is a token: kernels know it by its type."""

    name: str
    ggml_type: int
    integer_activations: bool
    # A tile's header, its blocks of 32 columns, and the bytes of each block.
    header_bytes = 0
    tile_blocks = 1
    block_bytes: int
    # Of each block, what lies apart.
    apart_block_bytes = 0

    @property
    def token_name(self) -> str:
        return f"Format({self.name})"

    @property
    def tile_bytes(self) -> int:
        return self.header_bytes + self.tile_blocks * self.block_bytes

    @property
    def apart_tile_bytes(self) -> int:
        return self.tile_blocks * self.apart_block_bytes

    @property
    def tile_columns(self) -> int:
        return self.tile_blocks * BLOCK_COLUMNS

    @property
    def tile_row_bytes(self) -> int:
        """GGUF bytes of one row of a tile."""
        return GgmlType(self.ggml_type).n_bytes((1, self.tile_columns))

    @staticmethod
    @abstractmethod
    def pack_row(format_: Any, source: Any, tile: Any, row: Any, table: Any) -> None:
        """Puts one row of a tile, GGUF's bytes at ``source``, into its places in the tile.

        Compiled into ``formats/packing.py``; ``table`` is the address of ``table()``.
        """

    @staticmethod
    def pack_row_apart(format_, source, apart, row):  # type: ignore[no-untyped-def]
        """Does the same with what the format keeps apart, if it does, at the address ``apart``."""

    def table(self) -> NDArray[np.uint8] | None:
        """Returns what ``pack_row`` looks values up in, if it does."""
        return None

    @abstractmethod
    def panel(self, isa: Isa, n_tokens: int) -> Panel:
        """Returns the panels that the format's kernels read."""

    def is_signed(self, isa: Isa) -> bool:
        """Whether weights unpack to signed integers on an instruction set."""
        return False

    @abstractmethod
    def panel_width(self, isa: Isa) -> int:
        """Returns how many tokens a panel holds so that a micro-kernel fits the registers."""

    @abstractmethod
    def panel_parts(self, isa: Isa) -> int:
        """Returns how many parts of a tile a micro-kernel for panels takes at once."""

    def gemv_tiling(self, isa: Isa) -> "Tiling":
        """One token; all parts of a tile at once, so that memory is read in order."""
        return Tiling(self, isa, 1, isa.parts)

    def gemm_tiling(self, isa: Isa) -> "Tiling":
        """Panels of tokens, one after the other, for all tiles of a chunk, which are unpacked."""
        return Tiling(self, isa, self.panel_width(isa), self.panel_parts(isa))

    @abstractmethod
    def emit_one(
        self,
        e: Emitter,
        tiling: "Tiling",
        place: "Place",
        rows: Sequence[Value],
        panel: Value,
        totals: list[Value],
    ) -> list[Value]:
        """Emits totals[part] += rows of a block * the panel block of one token.

        ``rows`` holds each part's first row in the tile, as an int64 value.
        """

    @abstractmethod
    def unpacked_bytes(self, isa: Isa) -> int:
        """Returns what one part of a block takes once it is unpacked."""

    @abstractmethod
    def emit_unpack(self, e: Emitter, place: "Place", row: Value, target: Value) -> None:
        """Emits the unpacking of one part of a block, which begins at ``row``, to ``target``."""

    @abstractmethod
    def emit_many(
        self, e: Emitter, tiling: "Tiling", block: Value, panel: Value, totals: list[Value]
    ) -> list[Value]:
        """Emits totals[part * n_used + token] += rows of an unpacked block * a panel block.

        The parts of the block at ``block`` lie one behind the other.
        """

    def emit_expand(self, e: Emitter, tiling: "Tiling", block: Value, target: Value) -> None:
        """Emits a copy of a panel block to ``target`` as ``emit_many`` reads it if it expands."""
        raise NotImplementedError(f"{self.name} reads panels as they are")

    @abstractmethod
    def emit_dequantize(self, e: Emitter, place: "Place", row: Value, out: Value) -> None:
        """Emits one part's values as float32 into ``out``, laid out as [32 columns][16 rows]."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block of 32 columns lies: its tile, itself, and what the format keeps apart of it."""

    tile: Value
    block: Value
    apart: Value = None


@dataclass(frozen=True, slots=True)
class Tiling(Token):
    """A format, an instruction set and a micro-kernel shape: the token that specialises kernels.

    A micro-kernel multiplies ``n_parts`` parts of a tile by ``n_used`` tokens in registers: all
    ``n_tokens`` of a panel, or half of them, where the others are none.
    """

    format: Format
    isa: Isa
    n_tokens: int
    n_parts: int
    is_narrow: bool = False

    @property
    def tiling(self) -> "Tiling":
        return self

    @property
    def n_used(self) -> int:
        return self.n_tokens // 2 if self.is_narrow else self.n_tokens

    @property
    def narrow(self) -> "Tiling":
        """The tiling for panels that are half empty; for those of few tokens, the same."""
        if self.n_tokens < LEAST_HALVED:
            return self
        return dataclasses.replace(self, is_narrow=True)

    @property
    def token_name(self) -> str:
        used = f"{self.n_used} of " if self.is_narrow else ""
        shape = f"{used}{self.n_tokens} tokens x {self.n_parts} parts"
        return f"Tiling({self.format.name}, {self.isa.name}/{self.isa.lanes}, {shape})"

    @property
    def panel(self) -> Panel:
        return self.format.panel(self.isa, self.n_tokens)

    @property
    def expands(self) -> bool:
        """Whether GEMM first writes each broadcast of a panel out: ``formats/panel_token.py``.

        On AVX2, loading those vectors as operands saves an instruction in three.
        """
        integers = self.format.integer_activations
        return integers and self.n_tokens > 1 and self.isa.dot == "vpmaddubsw"

    @property
    def widens(self) -> bool:
        """Whether an expanded panel holds int16: see ``simd.running_dots``."""
        return self.expands and self.format.is_signed(self.isa)

    @property
    def unpacked_bytes(self) -> int:
        """What a micro-kernel's parts of a block take once they are unpacked."""
        return self.n_parts * self.format.unpacked_bytes(self.isa)

    @property
    def activation_words(self) -> int:
        """What a token's 32 activations take in a panel's block, or vectors in an expanded one."""
        return 16 if self.widens else 8

    @property
    def words(self) -> int:
        """Words of 4 bytes, or vectors, that a token takes in a panel's block."""
        return self.panel.token_bytes // 4 + self.activation_words - 8

    @property
    def step_bytes(self) -> int:
        """Bytes of a panel block as the micro-kernel reads it."""
        if self.expands:
            return 4 * self.isa.lanes * self.words * self.n_tokens
        return self.panel.block_bytes
