"""The screen of a head: when it is used, what it asks for, and what it finds."""

import ctypes
import itertools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from benchmarks.screened_head import Comparison, missed
from benchmarks.screened_samples import HIDDEN_STATES, SampleHead
from edgeqwen.errors import OptionError
from edgeqwen.formats import Q8_0
from edgeqwen.formats.screened import SCREENED
from edgeqwen.ggml_types import GgmlType
from edgeqwen.kernels.coarse import LOWEST
from edgeqwen.kernels.screen import MOST_WANTED
from edgeqwen.model.screening import (
    FIRST_PAUSE,
    LAST_PAUSE,
    PAYING_SHARE,
    Screen,
    mean_square_scales,
    screen_memory,
)
from edgeqwen.model.wanted import Wanted
from edgeqwen.model.weights import Matrix
from tests.formats.packing import pack, plain_format, weights_of
from tests.isas import address
from tests.oracles.screen import Weights

N_ROWS = 2005


def matrix(format_: Any = SCREENED[8], at: int = 0) -> Matrix:
    return Matrix((), format_, N_ROWS, 3 * format_.tile_columns, 0, at)


def wanted(**changes: Any) -> Wanted:
    arguments = {"k": 20, "penalised": np.zeros(N_ROWS, np.uint8), **changes}
    return Wanted(**arguments)


@pytest.mark.parametrize("format_", SCREENED.values(), ids=lambda f: f.name)
def test_parts_of_the_memory_lie_apart(format_: Any) -> None:
    memory = screen_memory(matrix(format_))
    offsets = [*memory.offsets.values(), memory.n_bytes]
    assert all(offset % 64 == 0 for offset in offsets)
    assert all(before < after for before, after in itertools.pairwise(offsets))


def test_a_plain_head_is_not_screened() -> None:
    screen = Screen(matrix(Q8_0))
    assert not screen.exists
    assert not screen.takes(wanted())


def test_only_some_logits_are_screened() -> None:
    screen = Screen(matrix())
    assert screen.takes(wanted())
    assert screen.takes(wanted(k=MOST_WANTED))
    assert not screen.takes(wanted(k=MOST_WANTED + 1))
    assert not screen.takes(None)


@pytest.mark.parametrize("format_", SCREENED.values(), ids=lambda f: f.name)
def test_mean_square_scales(format_: Any) -> None:
    rows = weights_of(format_, N_ROWS, 3)
    tiles = pack(format_, rows)
    found = mean_square_scales(matrix(format_, address(tiles)))
    scales = Weights.read(plain_format(format_), rows).scales
    assert found.shape == scales.shape[1:]
    np.testing.assert_allclose(found, (scales**2).mean(axis=0), rtol=0.2)


def learn(screen: Screen, n_computed: int) -> None:
    memory = np.zeros(screen.memory.n_bytes, np.uint8)
    chosen = address(memory) + screen.memory.offsets["chosen"]
    (ctypes.c_int64 * 2).from_address(chosen)[1] = n_computed
    screen.learn(address(memory))


def test_it_pauses_where_it_does_not_pay() -> None:
    screen = Screen(matrix())
    few, many = (int(PAYING_SHARE * screen.head.n_tiles) + i for i in (0, 1))
    learn(screen, few)
    pauses = []
    for _ in range(12):
        assert screen.takes(wanted())
        learn(screen, many)
        pauses.append(next(i for i in itertools.count() if screen.takes(wanted())))
    expected = [min(FIRST_PAUSE << i, LAST_PAUSE) for i in range(12)]
    assert pauses == expected
    # Once it pays, all is as in the beginning.
    learn(screen, few)
    assert screen.takes(wanted())
    learn(screen, many)
    assert next(i for i in itertools.count() if screen.takes(wanted())) == FIRST_PAUSE


def test_what_is_asked_for() -> None:
    tiles = pack(SCREENED[8], weights_of(SCREENED[8], N_ROWS, 3))
    screen = Screen(matrix(at=address(tiles)))
    penalised = np.zeros(N_ROWS, np.uint8)
    for repetition, subtracted in ((1.0, 0.0), (1.05, 0.1), (1 + 1e-12, 1e-12)):
        screen.ask(wanted(k=3, penalised=penalised, repetition=repetition, subtracted=subtracted))
        (request,) = screen.request
        assert (request["k"], request["penalised"]) == (3, address(penalised))
        for name, value in (("repetition", repetition), ("subtracted", subtracted)):
            # A token may be worth less than it seems, never more.
            stored = np.uint32(request[name]).view(np.float32)
            assert value < stored <= value * (1 + 3e-7) + 1e-12


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 0},
        {"repetition": 0.99},
        {"repetition": float("nan")},
        {"subtracted": -0.1},
        {"penalised": np.zeros(N_ROWS - 1, np.uint8)},
        {"penalised": np.zeros(N_ROWS, np.int64)},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=rf"expected k .* uint8 \[{N_ROWS}\]"):
        Screen(matrix()).ask(wanted(**changes))


@pytest.fixture(scope="module", params=[GgmlType.Q8_0, GgmlType.Q6_K], ids=lambda t: t.name)
def comparisons(request: Any) -> Iterator[list[Comparison]]:
    """The same head for one thread, and for three."""
    head = SampleHead.make("heavy-tailed", request.param, 4003, 256, np.random.default_rng(0))
    with closing(Comparison(head)) as one, closing(Comparison(head, n_threads=3)) as three:
        yield [one, three]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", HIDDEN_STATES)
def test_nothing_is_missed(comparisons: list[Comparison], kind: str) -> None:
    """The same k largest logits as without a screen; whoever computes them, the same are computed.

    Some thousand positions here; the benchmark goes through a million.
    """
    rng = np.random.default_rng(1)
    penalised = (rng.random(4003) < 0.1).astype(np.uint8)
    shares = []
    for i in range(250):
        request = Wanted((1, 20, 128)[i % 3], penalised, (1.0, 1.3)[i % 2], (0.0, 0.5)[i // 2 % 2])
        x = HIDDEN_STATES[kind](comparisons[0].head, rng)
        screened, full = comparisons[0].run(x, request)
        there = screened != np.float32(LOWEST)
        np.testing.assert_array_equal(screened[there], full[there])
        assert not len(missed(screened, full, request))
        if i < 20:
            np.testing.assert_array_equal(comparisons[1].run(x, request)[0], screened)
        if request.k < 128:
            shares.append(np.mean(there))
    assert np.mean(shares) < 0.6


@pytest.mark.thorough
@pytest.mark.parametrize("bad", ["nan", "infinity", "zero"])
def test_in_doubt_all_are_computed(comparisons: list[Comparison], bad: str) -> None:
    x = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    if bad == "zero":
        x[:] = 0
    else:
        x[77] = float(bad)
    screened, full = comparisons[0].run(x, wanted(penalised=np.zeros(4003, np.uint8)))
    np.testing.assert_array_equal(screened, full)


@pytest.mark.thorough
def test_low_bits_that_are_not_random_are_noticed() -> None:
    """As if 8 bits had been made from 4: the low bits of all weights are alike."""
    head = SampleHead.make("normal", GgmlType.Q8_0, 4003, 256, np.random.default_rng(0))
    blocks = head.rows.reshape(4003, -1, 34)
    blocks[..., 2:] = (blocks[..., 2:].view(np.int8) & -16).view(np.uint8)
    x = np.abs(np.random.default_rng(1).standard_normal(256)).astype(np.float32)
    request = wanted(k=1, penalised=np.zeros(4003, np.uint8))
    with closing(Comparison(head)) as comparison:
        screened, full = comparison.run(x, request)
    np.testing.assert_array_equal(screened, full)
