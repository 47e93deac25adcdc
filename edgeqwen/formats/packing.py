"""Packing: rows of GGUF blocks into tiles, one template for all formats."""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from edgeqwen.formats.base import TILE_ROWS, Format, FormatType
from edgeqwen.simd.compile import compile_kernel, kernel
from edgeqwen.simd.ops import constant, poke_i64

_tile_bytes = constant(lambda t: t.format.tile_bytes)
_tile_row_bytes = constant(lambda t: t.format.tile_row_bytes)
_apart_tile_bytes = constant(lambda t: t.format.apart_tile_bytes)


def _pack_row(format_: Any, source: Any, tile: Any, row: Any, table: Any) -> None:
    """Stands for ``Format.pack_row`` of the format that ``format_`` is a token of."""
    raise NotImplementedError


# Written into the template, as ``inline_kernel`` explains.
@overload(_pack_row, inline="always")
def _pack_row_of(format_, source, tile, row, table):  # type: ignore[no-untyped-def]
    return format_.format.pack_row


def _pack_row_apart(format_: Any, source: Any, apart: Any, row: Any) -> None:
    """Stands for ``Format.pack_row_apart`` likewise."""
    raise NotImplementedError


@overload(_pack_row_apart, inline="always")
def _pack_row_apart_of(format_, source, apart, row):  # type: ignore[no-untyped-def]
    return format_.format.pack_row_apart


@kernel
def _pack(format_, source, n_rows, row_tiles, tiles, first, last, table):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        for k in range(row_tiles):
            index = i * row_tiles + k
            tile = tiles + index * _tile_bytes(format_)
            apart = tiles - (index + 1) * _apart_tile_bytes(format_)
            if (i + 1) * TILE_ROWS > n_rows:
                for offset in range(0, _tile_bytes(format_), 8):
                    poke_i64(tile + offset, 0)
                for offset in range(0, _apart_tile_bytes(format_), 8):
                    poke_i64(apart + offset, 0)
            for r in range(min(TILE_ROWS, n_rows - i * TILE_ROWS)):
                row = i * TILE_ROWS + r
                block = source + (row * row_tiles + k) * _tile_row_bytes(format_)
                _pack_row(format_, block, tile, r, table)
                _pack_row_apart(format_, block, apart, r)


def pack(
    format_: Format,
    source: NDArray[np.uint8],
    n_rows: int,
    row_tiles: int,
    tiles: int,
    first: int,
    last: int,
) -> None:
    """Packs rows of GGUF blocks into the tiles [first, last) of a matrix at the address ``tiles``.

    source: the matrix as the file has it, ``n_rows`` rows of ``row_tiles * tile_row_bytes`` bytes.
    tiles: uint8 [n_tiles][row_tiles][tile_bytes], n_tiles = ceil(n_rows / 16), and before it, in
    reverse, what the format keeps apart.
    """
    needed = n_rows * row_tiles * format_.tile_row_bytes
    if source.nbytes < needed or not source.flags.c_contiguous:
        raise AssertionError(f"{format_.name}: {source.nbytes} bytes to pack, planned {needed}")
    table = format_.table()
    lookup = 0 if table is None else table.ctypes.data
    _pack(format_, source.ctypes.data, n_rows, row_tiles, tiles, first, last, lookup)


def compile_pack(format_: Format) -> None:
    """Compiles (or loads) what ``pack`` runs for a format."""
    compile_kernel(_pack, FormatType(format_), *(types.int64,) * 7)
