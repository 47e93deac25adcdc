"""Formats of a screened head: the same weights as the plain format's, in two parts."""

import numpy as np
import pytest

from edgeqwen.formats import FORMATS
from edgeqwen.formats.screened import SCREENED, ScreenedFormat
from edgeqwen.simd.isa import Isa
from tests.formats.packing import (
    blocks_of,
    dequantized,
    pack,
    pack_range,
    plain_format,
    unpack,
    unpack_tiles,
    weights_of,
)
from tests.formats.test_tiles import same
from tests.isas import ALL_ISAS, NATIVE, each_isa
from tests.oracles.screen import Weights

each_format = pytest.mark.parametrize("format_", SCREENED.values(), ids=lambda f: f.name)


@each_format
def test_what_a_format_says_of_itself(format_: ScreenedFormat) -> None:
    plain = FORMATS[format_.ggml_type]
    assert SCREENED[format_.ggml_type] is format_
    assert format_.tile_bytes + format_.apart_tile_bytes == plain.tile_bytes
    assert format_.tile_columns == plain.tile_columns
    assert format_.lines * 64 == format_.apart_block_bytes
    for isa in ALL_ISAS:
        for kind in ("gemv_tiling", "gemm_tiling"):
            # Activations that were laid out for one can be read by the other.
            assert getattr(format_, kind)(isa).panel == getattr(plain, kind)(isa).panel


@each_isa()
@each_format
@pytest.mark.parametrize(("n_rows", "row_tiles"), [(1, 3), (37, 2), (96, 5)])
def test_random_bytes(isa: Isa, format_: ScreenedFormat, n_rows: int, row_tiles: int) -> None:
    rows = blocks_of(format_, n_rows, row_tiles)
    found = unpack(format_, isa, pack(format_, rows))
    same(found[:n_rows], dequantized(format_, rows))
    assert not found[n_rows:].any()  # rows past the end are zero


@each_format
def test_every_integer(format_: ScreenedFormat) -> None:
    """Every byte of a block takes all values, -128 included."""
    n = format_.tile_row_bytes
    rows = np.zeros((n, 256, n), np.uint8)
    at = {"Q8_0": (0,), "Q6_K": (208,)}[plain_format(format_)][0]
    rows[:, :, at : at + 2] = np.array([1.5], np.float16).view(np.uint8)
    for i in set(range(n)) - {at, at + 1}:
        rows[i, :, i] = np.arange(256)
    flat = rows.reshape(n, -1)
    same(unpack(format_, NATIVE, pack(format_, flat))[:n], dequantized(format_, flat))


@each_format
def test_whole_tiles(format_: ScreenedFormat) -> None:
    tiles = pack(format_, blocks_of(format_, 37, 2))
    same(unpack_tiles(format_, NATIVE, tiles), unpack(format_, NATIVE, tiles))


@each_format
def test_tiles_are_packed_where_they_are_asked_for(format_: ScreenedFormat) -> None:
    """Both parts: any division of the work gives the same memory, and touches no other."""
    rows = blocks_of(format_, 75, 3)
    whole, some = pack(format_, rows), pack(format_, rows, last_tile=0)
    untouched = 0xEE
    assert (memory_of(some) == untouched).all()
    for first, last in ((3, 5), (0, 1)):
        pack_range(format_, rows, some, first, last)
    apart = 5 * 3 * format_.apart_tile_bytes
    # In reverse: the last row of tiles is the first in memory.
    found = memory_of(some)[:apart].reshape(5, -1)[::-1]
    expected = memory_of(whole)[:apart].reshape(5, -1)[::-1]
    np.testing.assert_array_equal(found[[0, 3, 4]], expected[[0, 3, 4]])
    np.testing.assert_array_equal(some[[0, 3, 4]], whole[[0, 3, 4]])
    assert (found[1:3] == untouched).all()
    assert (some[1:3] == untouched).all()


@each_format
def test_scales(format_: ScreenedFormat) -> None:
    rows = weights_of(format_, 32, 3)
    tiles = pack(format_, rows)
    found = format_.scales(tiles.reshape(-1, format_.tile_bytes))
    assert found.shape == (2 * 3, format_.tile_blocks, format_.groups, 16)
    assert found.dtype == np.float32
    found = found.reshape(2, -1, format_.groups, 16).transpose(0, 3, 1, 2)
    expected = Weights.read(plain_format(format_), rows).scales
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-6)


def memory_of(tiles: np.ndarray) -> np.ndarray:
    """Returns all that ``pack`` has allocated."""
    while isinstance(tiles.base, np.ndarray):
        tiles = tiles.base
    return tiles
