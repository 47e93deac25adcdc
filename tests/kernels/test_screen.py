"""Choosing the tiles that may hold the largest logits, step by step against the twin."""

import math
from typing import Any

import numpy as np
import pytest

from edgeqwen.formats.screened import SCREENED, ScreenedFormat
from edgeqwen.kernels.coarse import DEVIATIONS, LOWEST
from edgeqwen.kernels.coarse_factors import ROUNDING
from edgeqwen.kernels.screen import (
    LEAST_SEEDS,
    MOST_SEEDS,
    MOST_WANTED,
    MOST_WIDENED,
    REQUEST,
    SCREEN,
    SEEDS_PER_WANTED,
    choose_seeds,
    choose_survivors,
    compute_seeds,
    compute_survivors,
)
from edgeqwen.simd.isa import Isa
from tests.isas import NATIVE, address, each_isa
from tests.kernels.running import bits, run
from tests.kernels.screening import Head
from tests.oracles import screen as oracle

Q8_0, Q6_K = SCREENED[8], SCREENED[14]
each_format = pytest.mark.parametrize("format_", SCREENED.values(), ids=lambda f: f.name)


class Screening:
    """A head of so many tiles, the last of them not whole, and the memory of the screen."""

    def __init__(
        self, n_tiles: int, k: int, *, format_: ScreenedFormat = Q8_0, isa: Isa = NATIVE
    ) -> None:
        self.head = Head(format_, isa, 16 * n_tiles - 5)
        self.n_tiles, self.k = n_tiles, k
        self.penalised = np.zeros(self.head.n_rows, np.uint8)
        self.request = np.zeros(1, REQUEST)
        self.request["k"], self.request["penalised"] = k, address(self.penalised)
        self.penalise(1.0, 0.0)
        self.chosen = np.full(2 + n_tiles + 1, -1, np.int64)
        self.errors = np.full((MOST_SEEDS, 2), np.nan, np.float32)
        self.largest = np.full(MOST_WANTED, np.nan, np.float32)

    def penalise(self, repetition: float, subtracted: float, ids: Any = ()) -> None:
        self.repetition, self.subtracted = np.float32(repetition), np.float32(subtracted)
        self.request["repetition"] = bits(repetition)
        self.request["subtracted"] = bits(subtracted)
        self.penalised[list(ids)] = 1

    def run(self, kernel: Any, n_chunks: int = 1) -> None:
        arguments = {
            **self.head.shared(),
            "request": self.request,
            "n_rows": self.head.n_rows,
            "chosen": self.chosen,
            "errors": self.errors,
            "largest": self.largest,
            "n_chunks": n_chunks,
        }
        run(kernel, self.head.tiling, SCREEN, n_chunks, arguments)
        assert self.chosen[-1] == -1

    @property
    def seeds(self) -> list[int]:
        found: list[int] = self.chosen[2 : 2 + self.chosen[0]].tolist()
        return found

    @property
    def survivors(self) -> list[int]:
        found: list[int] = self.chosen[2 + self.chosen[0] : 2 + self.chosen[1]].tolist()
        return found

    def set_bounds(self, bounds: np.ndarray, more: float = 0.0) -> None:
        self.head.bounds[:-1, 0] = bounds
        self.head.bounds[:-1, 1] = more

    def set_seeds(self, seeds: np.ndarray, *, error: float = 1.0) -> None:
        """As if these had been computed, and errors were so many times what was expected."""
        self.chosen[:2] = len(seeds)
        self.chosen[2 : 2 + len(seeds)] = seeds
        self.head.bounds[seeds, 0] = -np.inf
        self.errors[: len(seeds), 0] = (error / DEVIATIONS) ** 2 * 3
        self.errors[: len(seeds), 1] = 3


@pytest.mark.parametrize("k", [1, 20, MOST_WANTED])
@pytest.mark.parametrize("n_tiles", [5, 700])
@pytest.mark.parametrize("order", ["random", "rising", "falling", "equal"])
def test_seeds_have_the_highest_bounds(k: int, n_tiles: int, order: str) -> None:
    bounds = np.random.default_rng(k).standard_normal(n_tiles).astype(np.float32)
    bounds = {
        "random": bounds,
        "rising": np.sort(bounds),
        "falling": np.sort(bounds)[::-1],
        "equal": np.zeros(n_tiles, np.float32),
    }[order]
    screening = Screening(n_tiles, k)
    screening.set_bounds(bounds)
    screening.run(choose_seeds)
    n_seeds = min(n_tiles, max(LEAST_SEEDS, SEEDS_PER_WANTED * k))
    assert screening.seeds == np.argsort(-bounds, kind="stable")[:n_seeds].tolist()
    assert screening.survivors == []
    found = screening.head.bounds[:-1, 0]
    assert set(np.flatnonzero(np.isneginf(found))) == set(screening.seeds)
    kept = ~np.isneginf(found)
    np.testing.assert_array_equal(found[kept], bounds[kept])


def test_infinite_bounds_are_the_highest() -> None:
    screening = Screening(200, 1)
    bounds = np.arange(200, dtype=np.float32)
    bounds[[3, 100]] = math.inf
    screening.set_bounds(bounds)
    screening.run(choose_seeds)
    assert screening.seeds[:3] == [3, 100, 199]


def prepared(k: int, *, n_tiles: int = 300, **seeds: Any) -> tuple[Screening, np.ndarray]:
    """Returns a screening with random bounds and seeds, whose logits are known, and the seeds."""
    rng = np.random.default_rng(k)
    screening = Screening(n_tiles, k)
    screening.set_bounds(rng.uniform(0, 8, n_tiles), more=0.5)
    # The last tile too, of which not all rows exist.
    chosen = np.append(rng.permutation(n_tiles - 1)[:39], n_tiles - 1)
    screening.set_seeds(chosen, **seeds)
    for tile in chosen:
        screening.head.logits[16 * tile : 16 * tile + 16] = rng.standard_normal(16) * 2
    screening.head.logits[screening.head.n_rows : 16 * n_tiles] = 100
    return screening, chosen


def rows_of(screening: Screening, tiles: np.ndarray) -> np.ndarray:
    rows = (16 * tiles[:, None] + np.arange(16)).ravel()
    return rows[rows < screening.head.n_rows]


@pytest.mark.parametrize("k", [1, 2, 20, 64, MOST_WANTED])
@pytest.mark.parametrize(
    ("repetition", "subtracted"), [(1, 0), (1.3, 0), (1, 0.7), (1.1, 0.3)], ids=str
)
def test_survivors_reach_the_threshold(k: int, repetition: float, subtracted: float) -> None:
    screening, seeds = prepared(k)
    head = screening.head
    rows = rows_of(screening, seeds)
    # Half of the rows, the largest logits among them.
    ids = rows[head.logits[rows] > np.median(head.logits[rows])]
    screening.penalise(repetition, subtracted, ids)
    before = head.bounds.copy()
    screening.run(choose_survivors)
    values = oracle.worth(
        head.logits[rows], screening.penalised[rows], screening.repetition, screening.subtracted
    )
    threshold = np.sort(values)[-k]
    expected = oracle.survivors(before[:-1, 0], before[:-1, 1], seeds, threshold, 1)
    assert 0 < len(expected) < 260
    assert screening.survivors == expected
    assert screening.seeds == seeds.tolist()


@pytest.mark.parametrize("error", [0.1, 1, 1.4, MOST_WIDENED - 0.01])
def test_larger_errors_widen_the_bounds(error: float) -> None:
    screening, seeds = prepared(20, error=error)
    before = screening.head.bounds.copy()
    screening.run(choose_survivors)
    threshold = np.sort(screening.head.logits[rows_of(screening, seeds)])[-20]
    expected = oracle.survivors(before[:-1, 0], before[:-1, 1], seeds, threshold, error)
    assert screening.survivors == expected
    unwidened = oracle.survivors(before[:-1, 0], before[:-1, 1], seeds, threshold, 1)
    assert (len(expected) > len(unwidened)) == (error > 1)


@pytest.mark.parametrize("error", [MOST_WIDENED + 0.01, math.inf, math.nan])
def test_much_larger_errors_have_all_computed(error: float) -> None:
    screening, seeds = prepared(20, error=error)
    screening.run(choose_survivors)
    assert screening.survivors == sorted(set(range(300)) - set(seeds.tolist()))


def test_without_any_spread_all_are_computed() -> None:
    screening, seeds = prepared(20)
    screening.errors[: len(seeds)] = 0
    screening.run(choose_survivors)
    assert len(screening.survivors) == 260


def test_fewer_rows_than_are_wanted_have_all_computed() -> None:
    screening, _ = prepared(20)
    screening.set_bounds(np.zeros(300))
    screening.set_seeds(np.array([299]))
    screening.run(choose_survivors)
    assert len(screening.survivors) == 299


def test_a_bound_that_is_no_number_is_computed() -> None:
    screening, seeds = prepared(1)
    others = sorted(set(range(300)) - set(seeds.tolist()))
    screening.head.bounds[others, 0] = -1000
    screening.head.bounds[others[7], 0] = math.inf
    screening.head.bounds[others[9]] = [-1000, math.nan]
    screening.run(choose_survivors)
    assert screening.survivors == [others[7], others[9]]


@pytest.mark.parametrize("logit", [3.0, -3.0])
@pytest.mark.parametrize("repetition", [1.0, 1.05, 7.7, 1e6])
@pytest.mark.parametrize("subtracted", [0.0, 1e-3, 2.1, 500.0])
def test_what_a_penalised_token_is_worth_is_never_too_much(
    logit: float, repetition: float, subtracted: float
) -> None:
    """The threshold is a float32, and no larger than what the sampler computes in float64."""
    screening, seeds = prepared(1)
    head = screening.head
    rows = rows_of(screening, seeds)
    head.logits[rows] = -1e30
    head.logits[rows[3]] = logit
    screening.penalise(repetition, subtracted, rows[3:4])
    exact = oracle.worth(
        head.logits[rows[3:4]], np.array([True]), screening.repetition, screening.subtracted
    )[0]
    screening.run(choose_survivors)
    assert exact * (1 - np.sign(exact) * 1e-6) <= screening.largest[0] <= exact


@each_isa()
@each_format
@pytest.mark.parametrize("n_chunks", [1, 7])
def test_what_is_computed_is_the_full_product(
    isa: Isa, format_: ScreenedFormat, n_chunks: int
) -> None:
    screening = Screening(60, 1, format_=format_, isa=isa)
    head = screening.head
    head.coarse()
    screening.set_seeds(np.array([59, 3, 0, 30]))
    screening.run(compute_seeds, n_chunks)
    seeds_errors = screening.errors[:4].copy()
    screening.chosen[1] = 7
    screening.chosen[6:9] = [1, 2, 58]
    screening.run(compute_survivors, n_chunks)
    expected = np.full((60, 16), LOWEST, np.float32)
    computed = [59, 3, 0, 30, 1, 2, 58]
    full = head.full().reshape(60, 16)
    expected[computed] = full[computed]
    np.testing.assert_array_equal(
        head.logits[:-16].view(np.uint32), expected.ravel().view(np.uint32)
    )
    assert (head.logits[-16:] == 777).all()
    # What was written of the seeds' errors, and of no other's.
    logits, deviations = oracle.coarse(head.weights, head.x, head.chosen_lines(), ROUNDING)
    reach = float(head.factors[0])
    errors = np.pad((full.ravel()[: head.n_rows] - logits) / reach, (0, 5))
    spreads = np.pad(DEVIATIONS * deviations / reach, (0, 5))
    for i, tile in enumerate([59, 3, 0, 30]):
        rows = slice(16 * tile, 16 * tile + 16)
        found = np.array([(errors[rows] ** 2).sum(), (spreads[rows] ** 2).sum()])
        np.testing.assert_allclose(seeds_errors[i], found, rtol=1e-2)
    np.testing.assert_array_equal(screening.errors[:4], seeds_errors)
    assert np.isnan(screening.errors[4:]).all()


def test_where_all_low_bits_were_looked_up_errors_are_as_small_as_expected() -> None:
    screening = Screening(60, 1)
    screening.head.x[:] = 0
    screening.head.x[32:64] = np.arange(32) - 9
    head = Head(Q8_0, NATIVE, 955, x=screening.head.x)
    screening.head = head
    head.coarse()
    assert {block for block, _ in head.chosen_lines()} == {1}
    assert len(head.chosen_lines()) == 4
    screening.run(choose_seeds)
    screening.run(compute_seeds)
    screening.run(choose_survivors)
    assert len(screening.survivors) < 10


def test_a_bad_weight_is_found_in_the_errors() -> None:
    screening = Screening(40, 1)
    head = screening.head
    head.coarse()
    head.tiles[3, 0, :2] = 0xFF
    screening.set_seeds(np.array([3, 4]))
    screening.run(compute_seeds)
    assert np.isnan(screening.errors[0, 0])
    assert np.isfinite(screening.errors[1]).all()
