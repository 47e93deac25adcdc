"""Packing GGUF blocks into tiles and unpacking them: bit for bit what ``gguf`` dequantizes."""

import numpy as np
import pytest

from edgeqwen.formats import FORMATS, Q4_0, Format, packing
from edgeqwen.formats.base import TILE_ROWS
from edgeqwen.ggml_types import BITS_IN_MEMORY, GgmlType
from edgeqwen.simd.isa import Isa
from tests.formats.packing import (
    blocks_of,
    dequantized,
    formats_on,
    pack,
    pack_range,
    unpack,
    unpack_tiles,
)
from tests.isas import NATIVE, TEST_ISAS, each_isa
from tests.random_blocks import FACTORS

each_format = pytest.mark.parametrize("format_", FORMATS.values(), ids=lambda f: f.name)


def each_case(*, scaled: bool = False) -> pytest.MarkDecorator:
    """Marks a test that takes ``isa`` and ``format_``; of the scaled formats only if asked."""
    cases = [(isa, f) for isa in TEST_ISAS for f in formats_on(isa)]
    cases = [case for case in cases if case[1].integer_activations or not scaled]
    ids = [f"{isa.name}-{f.name}" for isa, f in cases]
    return pytest.mark.parametrize(("isa", "format_"), cases, ids=ids)


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
    assert format_.tile_columns == max(kind.block_size, 32)
    assert format_.tile_row_bytes == kind.n_bytes((1, format_.tile_columns))
    # Scales of 6 bits take 8 in a tile; some types are repacked, and all else is as in the file.
    bits = format_.tile_bytes * 8 / (TILE_ROWS * format_.tile_columns)
    if kind in BITS_IN_MEMORY:
        assert bits == BITS_IN_MEMORY[kind] > 1.2 * kind.bits_per_weight
    else:
        widened = kind.name in ("Q3_K", "Q4_K", "Q5_K", "IQ4_XS")
        assert bits <= kind.bits_per_weight * (1.04 if widened else 1)
    for isa in TEST_ISAS:
        for tiling in (format_.gemv_tiling(isa), format_.gemm_tiling(isa)):
            assert isa.parts % tiling.n_parts == 0
            assert tiling.panel.block_bytes % 4 == 0
        assert format_.gemv_tiling(isa).n_tokens == 1
        assert format_.gemm_tiling(isa).n_tokens > 1


@each_case()
@pytest.mark.parametrize(("n_rows", "row_tiles"), [(16, 1), (1, 3), (37, 2), (96, 5)])
def test_random_bytes(isa: Isa, format_: Format, n_rows: int, row_tiles: int) -> None:
    rows = blocks_of(format_, n_rows, row_tiles)
    found = unpack(format_, isa, pack(format_, rows))
    same(found[:n_rows], dequantized(format_, rows))
    assert not found[n_rows:].any()  # rows past the end are zero


@each_format
def test_whole_tiles(format_: Format) -> None:
    tiles = pack(format_, blocks_of(format_, 37, 2))
    same(unpack_tiles(format_, NATIVE, tiles), unpack(format_, NATIVE, tiles))


@pytest.mark.thorough
@each_case(scaled=True)
def test_every_scale(isa: Isa, format_: Format) -> None:
    """All 65536 bit patterns: denormal, negative, infinite, NaN; with the extreme weights."""
    patterns = np.arange(65536, dtype="<u2").view(np.uint8).reshape(256, 256, 2)
    extremes = np.array([0x80, 0x7F, 0x08, 0xFF, 0, 1], np.uint8)
    for at in FACTORS[format_.name]:
        rows = np.resize(extremes, (256, 256, format_.tile_row_bytes))
        for other in FACTORS[format_.name]:
            rows[:, :, other : other + 2] = np.array([0.75], np.float16).view(np.uint8)
        rows[:, :, at : at + 2] = patterns
        flat = rows.reshape(256, -1)
        same(unpack(format_, isa, pack(format_, flat)), dequantized(format_, flat))


@each_isa()
@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_element_of_two_bytes(isa: Isa, name: str) -> None:
    format_ = next(f for f in FORMATS.values() if f.name == name)
    rows = np.arange(65536, dtype="<u2").reshape(64, 1024).view(np.uint8)
    same(unpack(format_, isa, pack(format_, rows)), dequantized(format_, rows))


@each_case(scaled=True)
def test_every_weight_in_every_place(isa: Isa, format_: Format) -> None:
    """Each byte of a block in turn takes all values, -128 included, the others staying 0."""
    n = format_.tile_row_bytes
    factors = {place for at in FACTORS[format_.name] for place in (at, at + 1)}
    # A byte of the others that isn't 0 in superblocks, where scales are bytes, too.
    rows = np.full((n, 256, n), 0x5A if format_.tile_blocks > 1 else 0, np.uint8)
    for at in FACTORS[format_.name]:
        rows[:, :, at : at + 2] = np.array([1.5], np.float16).view(np.uint8)
    for i in set(range(n)) - factors:
        rows[i, :, i] = np.arange(256)
    flat = rows.reshape(n, -1)
    same(unpack(format_, isa, pack(format_, flat))[:n], dequantized(format_, flat))


@each_format
def test_tiles_are_packed_where_they_are_asked_for(format_: Format) -> None:
    """Any division of the work among threads gives the same tiles, and touches no others."""
    rows = blocks_of(format_, 75, 3)
    whole = pack(format_, rows)
    some = np.full_like(whole, 0xEE)
    for first, last in ((3, 5), (0, 1)):
        assert pack_range(format_, rows, some, first, last) == rows[16 * first : 16 * last].nbytes
    np.testing.assert_array_equal(some[[0, 3, 4]], whole[[0, 3, 4]])
    assert (some[1:3] == 0xEE).all()
    assert (pack(format_, rows, last_tile=0) == 0xEE).all()
    # The last rows don't fill their tile, and neither are they counted as if they did.
    assert pack_range(format_, rows, some, 4, 5) == rows[64:].nbytes


def test_nothing_is_packed_any_more_once_it_is_to_stop() -> None:
    rows = blocks_of(Q4_0, 32, 1)
    tiles = np.full((2, 1, Q4_0.tile_bytes), 0xEE, np.uint8)
    assert pack_range(Q4_0, rows, tiles, 0, 2, stop=True) == 0
    assert (tiles == 0xEE).all()


def test_jobs_cover_a_matrix_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "JOB_BYTES", 40 * Q4_0.tile_row_bytes)
    source = np.zeros(37 * Q4_0.tile_row_bytes, np.uint8)
    jobs = packing.pack_jobs(Q4_0, source, 37, 4096)
    assert jobs["first"].tolist() == [0, 2]
    assert jobs["last"].tolist() == [2, 3]
    assert set(jobs["n_rows"]) == {37}
    assert set(jobs["row_tiles"]) == {1}
    with pytest.raises(AssertionError, match="Q4_0: 666 bytes aren't 36 rows of tiles"):
        packing.pack_jobs(Q4_0, source, 36, 4096)
