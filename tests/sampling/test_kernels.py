"""The pass that finds the largest logits, against a stable sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeqwen.sampling.kernels import BLOCK, LARGEST, largest
from tests.isas import address

NOTHING = (np.empty(0), np.empty(0, np.int32))


def find(
    logits: np.ndarray, k: int, skip: np.ndarray | None = None, more: tuple = NOTHING
) -> tuple[int, list[int], list[float]]:
    skip = np.zeros(len(logits), np.uint8) if skip is None else skip
    values, ids = np.empty(k), np.empty(k, np.int32)
    arguments = np.zeros(1, LARGEST)
    for name, array in (
        *(("logits", logits), ("skip", skip), ("values", values), ("ids", ids)),
        *(("more_values", more[0]), ("more_ids", more[1])),
    ):
        arguments[name] = address(array)
    arguments["n_logits"], arguments["n_more"], arguments["k"] = len(logits), len(more[1]), k
    found = largest(address(arguments))
    return found, ids[: max(found, 0)].tolist(), values[: max(found, 0)].tolist()


# Few different values, so that there are many ties; both zeros are the same number.
FLOATS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3e38, -3e38]) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
)


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(np.float32, st.integers(1, 3 * BLOCK), elements=FLOATS),
    st.integers(1, 40),
    st.data(),
)
def test_same_as_a_stable_sort(logits: np.ndarray, k: int, data: st.DataObject) -> None:
    moved = data.draw(st.lists(st.integers(0, len(logits) - 1), unique=True, max_size=50))
    values = data.draw(hnp.arrays(np.float64, len(moved), elements=FLOATS))
    skip = np.zeros(len(logits), np.uint8)
    skip[moved] = 1
    all_values = logits.astype(np.float64)
    all_values[moved] = values
    expected = sorted(np.argsort(-all_values, kind="stable")[:k].tolist())
    found, ids, found_values = find(logits, k, skip, (values, np.array(moved, np.int32)))
    assert (found, ids) == (len(expected), expected)
    assert found_values == all_values[expected].tolist()


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 151_936])
def test_lengths(n: int) -> None:
    logits = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    for k in (1, 20, 100):
        assert find(logits, k)[1] == sorted(np.argsort(-logits, kind="stable")[:k].tolist())


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, BLOCK, 999])
def test_whatever_is_no_number_is_noticed(bad: float, place: int) -> None:
    logits = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    logits[place] = bad
    assert find(logits, 5)[0] == -1
    skip = np.zeros(1000, np.uint8)
    skip[place] = 1
    assert find(logits, 5, skip)[0] == -1


def test_largest_numbers_are_numbers() -> None:
    top = np.finfo(np.float32).max
    assert find(np.array([-top, top, 0], np.float32), 2) == (2, [1, 2], [float(top), 0.0])
