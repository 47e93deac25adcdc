"""Packing GGUF blocks into tiles and unpacking them: bit for bit what ``gguf`` dequantizes."""

import numpy as np
import pytest

from edgeqwen.formats import FORMATS, Format
from edgeqwen.formats.base import TILE_COLUMNS, TILE_ROWS
from edgeqwen.ggml_types import GgmlType
from edgeqwen.simd.isa import Isa
from tests.formats.packing import blocks_of, dequantized, pack, unpack, unpack_tiles
from tests.isas import NATIVE, TEST_ISAS, address, each_isa

each_format = pytest.mark.parametrize("format_", FORMATS.values(), ids=lambda f: f.name)
SCALED = [f for f in FORMATS.values() if f.integer_activations]


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Bit by bit, but for the payload and the sign of NaN."""
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    # An infinite or NaN scale times zero, and a sum with NaN, have no defined sign.
    np.testing.assert_array_equal(found[~nan].view(np.uint32), expected[~nan].view(np.uint32))


@each_format
def test_what_a_format_says_of_itself(format_: Format) -> None:
    kind = GgmlType(format_.ggml_type)
    assert kind.name == format_.name
    assert format_.row_block_bytes == kind.n_bytes((1, TILE_COLUMNS))
    assert format_.tile_bytes == TILE_ROWS * format_.row_block_bytes
    for isa in TEST_ISAS:
        for tiling in (format_.gemv_tiling(isa), format_.gemm_tiling(isa)):
            assert isa.parts % tiling.n_parts == 0
            assert tiling.panel_block_bytes % 4 == 0
        assert format_.gemv_tiling(isa).n_tokens == 1
        assert format_.gemm_tiling(isa).n_tokens > 1


@each_isa()
@each_format
@pytest.mark.parametrize(("n_rows", "n_blocks"), [(16, 1), (1, 3), (37, 2), (96, 5)])
def test_random_bytes(isa: Isa, format_: Format, n_rows: int, n_blocks: int) -> None:
    rows = blocks_of(format_, n_rows, n_blocks)
    found = unpack(format_, isa, pack(format_, rows))
    same(found[:n_rows], dequantized(format_, rows))
    assert not found[n_rows:].any()  # rows past the end are zero


@each_format
def test_whole_tiles(format_: Format) -> None:
    tiles = pack(format_, blocks_of(format_, 37, 2))
    same(unpack_tiles(format_, NATIVE, tiles), unpack(format_, NATIVE, tiles))


@each_isa()
@pytest.mark.parametrize("format_", SCALED, ids=lambda f: f.name)
def test_every_scale(isa: Isa, format_: Format) -> None:
    """All 65536 bit patterns: denormal, negative, infinite, NaN; with the extreme weights."""
    rows = np.zeros((256, 256, format_.row_block_bytes), np.uint8)
    rows[:, :, :2] = np.arange(65536, dtype="<u2").view(np.uint8).reshape(256, 256, 2)
    rows[:, :, 2:] = np.resize(np.array([0x80, 0x7F, 0x08, 0xFF, 0, 1], np.uint8), 16)[
        np.arange(format_.row_block_bytes - 2) % 16
    ]
    flat = rows.reshape(256, -1)
    same(unpack(format_, isa, pack(format_, flat)), dequantized(format_, flat))


@each_isa()
@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_element_of_two_bytes(isa: Isa, name: str) -> None:
    format_ = next(f for f in FORMATS.values() if f.name == name)
    rows = np.arange(65536, dtype="<u2").reshape(64, 1024).view(np.uint8)
    same(unpack(format_, isa, pack(format_, rows)), dequantized(format_, rows))


@each_isa()
@pytest.mark.parametrize("format_", SCALED, ids=lambda f: f.name)
def test_every_weight_in_every_place(isa: Isa, format_: Format) -> None:
    """Each byte of a block in turn takes all values, -128 included, the others staying 0."""
    n = format_.row_block_bytes - 2
    rows = np.zeros((n, 256, format_.row_block_bytes), np.uint8)
    rows[:, :, :2] = np.array([1.5], np.float16).view(np.uint8)
    for i in range(n):
        rows[i, :, 2 + i] = np.arange(256)
    flat = rows.reshape(n, -1)
    same(unpack(format_, isa, pack(format_, flat))[:n], dequantized(format_, flat))


@each_format
def test_tiles_are_packed_where_they_are_asked_for(format_: Format) -> None:
    """Any division of the work among threads gives the same tiles, and touches no others."""
    rows = blocks_of(format_, 75, 3)
    whole = pack(format_, rows)
    some = np.full_like(whole, 0xEE)
    for first, last in ((3, 5), (0, 1)):
        format_.pack(address(rows), 75, rows.shape[1], address(some), 3, first, last)
    np.testing.assert_array_equal(some[[0, 3, 4]], whole[[0, 3, 4]])
    assert (some[1:3] == 0xEE).all()
    assert (pack(format_, rows, last_tile=0) == 0xEE).all()
