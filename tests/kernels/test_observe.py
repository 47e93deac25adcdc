"""Sums of squares: bit for bit those of the twin, of the step's tokens and of no other memory."""

import numpy as np

from edgeqwen.kernels.observe import CHUNK_COLUMNS, OBSERVE, OBSERVED, observe
from edgeqwen.simd.isa import Isa
from tests.isas import address, each_isa
from tests.kernels.running import run, step_state
from tests.oracles import kernels as twins


def observed(isa: Isa, x: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Returns the sums after a step, from rows with something else between and after them."""
    n_tokens, n_columns = x.shape
    rows = np.full((n_tokens + 2, n_columns + 48), 777, np.float32)
    rows[:n_tokens, :n_columns] = x
    sums = np.full(n_columns + 40, 555.0)
    sums[24 : 24 + n_columns] = before
    place = np.zeros(1, OBSERVED)
    place["sums"] = address(sums)
    arguments = {
        "state": step_state(n_tokens),
        "observed": place,
        "first": 24,
        "x": rows,
        "stride": rows.strides[0],
        "n_columns": n_columns,
    }
    run(observe, isa, OBSERVE, -(-n_columns // CHUNK_COLUMNS), arguments)
    assert (sums[:24] == 555).all()
    assert (sums[24 + n_columns :] == 555).all()
    return sums[24 : 24 + n_columns]


@each_isa()
def test_sums_of_squares(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    for n_tokens, n_columns in ((1, 32), (7, 96), (256, CHUNK_COLUMNS), (3, CHUNK_COLUMNS + 32)):
        x = rng.standard_normal((n_tokens, n_columns)).astype(np.float32)
        x *= 10.0 ** rng.integers(-6, 7, n_columns).astype(np.float32)
        before = rng.random(n_columns) * 1e3
        np.testing.assert_array_equal(observed(isa, x, before), twins.sums_of_squares(x, before))


@each_isa()
def test_a_long_text_loses_nothing(isa: Isa) -> None:
    """In float32, a sum of 20 million would not notice one more square of 1."""
    before = np.full(32, 2e7)
    x = np.ones((200, 32), np.float32)
    assert (observed(isa, x, before) == 2e7 + 200).all()


@each_isa()
def test_extreme_activations(isa: Isa) -> None:
    values = np.array([0.0, -0.0, 3.4e38, -3.4e38, 1e-38, 1e-45, np.inf, -np.inf, np.nan], "f4")
    x = np.resize(values, (1, 32)).astype(np.float32)
    found = observed(isa, x, np.zeros(32))
    np.testing.assert_array_equal(found, twins.sums_of_squares(x, np.zeros(32)))
    assert found[2] == np.float64(np.float32(3.4e38)) ** 2  # finite, as float32 would not be
    assert found[5] > 0
