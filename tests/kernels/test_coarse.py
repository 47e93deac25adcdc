"""The coarse pass against its twin: logits from high bits, deviations, and the lines looked up."""

import math

import numpy as np
import pytest

from edgeqwen.formats.screened import SCREENED, ScreenedFormat
from edgeqwen.kernels.coarse import DEVIATIONS, KEPT_LINES, LOWEST, MOST_LINES
from edgeqwen.kernels.coarse_factors import LEAST_SHARE, ROUNDING
from edgeqwen.simd.isa import Isa
from tests.isas import ALL_ISAS, NATIVE, each_isa
from tests.kernels.screening import Head
from tests.oracles import screen as oracle
from tests.oracles.kernels import product

each_format = pytest.mark.parametrize("format_", SCREENED.values(), ids=lambda f: f.name)


def activations(format_: ScreenedFormat, kind: str) -> np.ndarray:
    """Returns float32 [columns of 3 tiles]."""
    n = 3 * format_.tile_columns
    x = np.random.default_rng(len(kind)).standard_normal(n).astype(np.float32)
    if kind == "outliers":
        x[[5, 40, 41, n - 1]] *= 30
    elif kind == "one column":
        x[:] = 0
        x[37] = 3
    elif kind == "tiny":
        x *= np.float32(1e-25)
    elif kind == "huge":
        x *= np.float32(1e20)
    return x


def check(head: Head) -> None:
    """Compares what the kernels wrote with the twin."""
    lines = oracle.chosen_lines(head.weights, head.x, MOST_LINES, LEAST_SHARE)
    assert head.chosen_lines() == lines
    logits, deviations = oracle.coarse(head.weights, head.x, lines, ROUNDING)
    reach = DEVIATIONS * deviations
    _, rounding = product(np.ones((1, head.x.size)), np.abs(head.x)[None])
    largest = np.abs(head.weights.q * head.weights.by_column).max()
    slack = 1e-5 * reach.max() + rounding[0, 0] * largest
    padded = 16 * head.n_tiles - head.n_rows
    bounds = np.pad(logits + reach, (0, padded)).reshape(-1, 16).max(axis=1)
    widest = np.pad(reach, (0, padded)).reshape(-1, 16).max(axis=1)
    assert np.abs(head.bounds[:-1, 0] - bounds).max() <= slack
    assert np.abs(head.bounds[:-1, 1] - widest).max() <= slack
    assert np.isnan(head.bounds[-1]).all()
    assert (head.logits[:-16] == np.float32(LOWEST)).all()
    assert (head.logits[-16:] == 777).all()


@each_isa(ALL_ISAS)
def test_bounds_of_q8_0(isa: Isa) -> None:
    head = Head(SCREENED[8], isa, 75, x=activations(SCREENED[8], "outliers"))
    head.coarse()
    check(head)
    assert head.chosen_lines()


@each_isa()
def test_bounds_of_q6_k(isa: Isa) -> None:
    head = Head(SCREENED[14], isa, 75, x=activations(SCREENED[14], "outliers"))
    head.coarse()
    check(head)
    assert head.chosen_lines()


@each_format
@pytest.mark.parametrize("kind", ["normal", "one column", "tiny", "huge"])
def test_activations_of_every_kind(format_: ScreenedFormat, kind: str) -> None:
    head = Head(format_, NATIVE, 40, x=activations(format_, kind))
    head.coarse()
    check(head)


@each_format
def test_columns_with_large_weights_are_looked_up(format_: ScreenedFormat) -> None:
    """Though their activations are no larger: low bits of such blocks count for more."""
    head = Head(format_, NATIVE, 40)
    head.sizes[1] *= 1000
    head.coarse()
    found = head.chosen_lines()
    assert [block for block, _ in found[: format_.lines]] == [1] * format_.lines


@each_format
def test_few_lines_are_looked_up_where_all_are_alike(format_: ScreenedFormat) -> None:
    n_columns = 16 * format_.tile_columns
    head = Head(format_, NATIVE, 32, 16, x=np.ones(n_columns, np.float32))
    head.sizes[:] = 1
    head.coarse()
    assert head.chosen_lines() == []


@each_format
def test_lines_are_kept_for_later_tokens(format_: ScreenedFormat) -> None:
    head = Head(format_, NATIVE, 75, x=activations(format_, "outliers"))
    head.coarse()
    first = head.bounds[:-1].copy()
    assert head.chosen_lines()
    head.tiles.base[: -head.tiles.nbytes] = 0  # where they came from
    head.coarse()
    np.testing.assert_array_equal(head.bounds[:-1], first)
    head.kept_lines[:] = 0
    head.coarse()
    assert (head.bounds[:-1] != first).any()


@each_format
def test_what_is_kept_changes_nothing(format_: ScreenedFormat) -> None:
    """Tokens with ever other large activations, which need more lines than can be kept."""
    random, row_tiles = np.random.default_rng(0), 8
    head = Head(format_, NATIVE, 75, row_tiles)
    n_columns, seen = head.x.size, set()
    for _ in range(24):
        x = random.standard_normal(n_columns).astype(np.float32)
        x[random.choice(n_columns, 5, replace=False)] *= 30
        fresh = Head(format_, NATIVE, 75, row_tiles, x=x, rows=head.rows)
        head.panels[:] = fresh.panels
        for each in (fresh, head):
            each.coarse()
        np.testing.assert_array_equal(head.bounds[:-1], fresh.bounds[:-1])
        seen |= set(head.chosen_lines())
    assert len(seen) > KEPT_LINES


def test_the_number_of_chunks_changes_nothing() -> None:
    found = []
    for tiles_per_chunk in (1, 3, 100):
        head = Head(SCREENED[8], NATIVE, 75)
        head.coarse(tiles_per_chunk=tiles_per_chunk)
        found.append(head.bounds[:-1].tobytes())
    assert len(set(found)) == 1


@each_format
def test_a_bad_activation_gives_infinite_bounds(format_: ScreenedFormat) -> None:
    head = Head(format_, NATIVE, 40)
    head.panels[0, 1, 32:36].view(np.float32)[:] = np.nan
    head.coarse()
    assert (head.bounds[:-1, 0] == math.inf).all()


@each_format
def test_activations_that_overflow_give_infinite_bounds(format_: ScreenedFormat) -> None:
    x = activations(format_, "normal") * np.float32(5e37)
    head = Head(format_, NATIVE, 40, x=x)
    head.coarse()
    assert (head.bounds[:-1, 0] == math.inf).all()


@each_format
@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00], ids=["inf", "-inf", "nan"])
def test_a_bad_weight_gives_its_tile_an_infinite_bound(format_: ScreenedFormat, bits: int) -> None:
    plain = Head(format_, NATIVE, 40)
    rows = plain.rows.copy()
    at = {8: 0, 14: 208}[format_.ggml_type]
    rows[17, at : at + 2] = np.array([bits], np.uint16).view(np.uint8)
    with np.errstate(all="ignore"):
        head = Head(format_, NATIVE, 40, rows=rows, x=plain.x)
    head.sizes = plain.sizes
    for each in (plain, head):
        each.coarse()
    assert head.bounds[1, 0] == math.inf
    np.testing.assert_array_equal(head.bounds[[0, 2]], plain.bounds[[0, 2]])


def test_activations_of_zero() -> None:
    head = Head(SCREENED[8], NATIVE, 40, x=np.zeros(96, np.float32))
    head.coarse()
    assert not head.bounds[:-1].any()
    assert head.lines[0] == 0
