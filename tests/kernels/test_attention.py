"""Attention against the twin: one token and many, across the borders of every kind of tile."""

import numpy as np
import pytest

from edgeqwen.kernels.attention_core import BLOCK
from tests.kernels.attending import Attending
from tests.kernels.attention_cases import Heads, each_heads
from tests.oracles import kernels as twins

# Tiles of 32 keys and 64 values, blocks of 128 scores, units of 256 positions.
LENGTHS = (0, 1, 30, 31, 32, 63, 64, 127, 128, 255, 256, 300, 512)


def check(found: np.ndarray, attending: Attending, token: int | None = None) -> None:
    """Compares all tokens, or only one."""
    queries, n_past = attending.queries, attending.n_past
    if token is not None:
        queries, n_past = queries[token : token + 1], n_past + token
    exact, bound = twins.attention(queries, attending.k, attending.v, n_past)
    error = np.abs(found - exact)
    assert (error <= bound).all(), (error / bound).max()


@each_heads
def test_one_token(heads: Heads) -> None:
    for n_past in LENGTHS:
        attending = Attending(heads, n_past, 1, seed=n_past)
        check(attending.one(0)[None], attending)


@each_heads
def test_many_tokens(heads: Heads) -> None:
    per_chunk = heads.shape(one_token=False).tokens
    counts = (1, 2, per_chunk, per_chunk + 1, 2 * per_chunk + 3)
    for i, n_past in enumerate((0, 30, 61, BLOCK - 2, 255)):
        attending = Attending(heads, n_past, counts[i], seed=n_past)
        check(attending.many(), attending)
    attending = Attending(heads, 0, 140)  # a prompt from its beginning
    check(attending.many(), attending)


@each_heads
@pytest.mark.parametrize("n_past", [250, 1021])
def test_both_ways_give_the_same_bits(heads: Heads, n_past: int) -> None:
    attending = Attending(heads, n_past, 10)
    together = attending.many()
    for token in (0, 5, 6, 9):
        check(together[token][None], attending, token)
        np.testing.assert_array_equal(attending.one(token), together[token])


@each_heads
def test_the_keys_of_real_models(heads: Heads) -> None:
    """Keys of norm 600 and more: scores in the thousands, most weights are zero."""
    for key_norm in (600, 5000):
        attending = Attending(heads, 200, 9, key_norm=key_norm)
        for found in (attending.many(), attending.one(8)[None]):
            assert np.isfinite(found).all()
        check(attending.many(), attending)
        check(attending.one(8)[None], attending, 8)


@each_heads
def test_one_position_outweighs_all_others(heads: Heads) -> None:
    """Wherever the largest score stands, before or after what was summed so far."""
    for place in (0, 40, 129, 260, 299):
        attending = Attending(heads, 299, 1, seed=place)
        n_kv, size = heads.n_kv_heads, heads.head_dim
        queries = attending.queries[0].reshape(n_kv, heads.group, size)
        keys = attending.stored.copy()
        keys[place] = 20 * queries[:, 0]  # of the first head of each group
        if attending.biases is not None:
            keys[:, attending.biases.of_heads != 0] = 0
        attending.fill(keys, attending.v)
        found = attending.one(0)
        check(found[None], attending)
        check(attending.many(), attending)
        np.testing.assert_allclose(found[:: heads.group], attending.v[place], atol=1e-5)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 6e4])
@each_heads
def test_what_no_token_has_written_does_not_count(heads: Heads, garbage: float) -> None:
    """Beyond the last position, tiles hold whatever the memory held before."""
    attending = Attending(heads, 37, 5, garbage=garbage)
    check(attending.many(), attending)
    check(attending.one(2)[None], attending, 2)


@each_heads
def test_later_keys_of_the_same_step_do_not_count(heads: Heads) -> None:
    """A token sees no key after its own, whatever that is: here not even a number."""
    n_tokens = heads.shape(one_token=False).tokens + 2
    attending = Attending(heads, 40, n_tokens)
    before = attending.many()
    bad = attending.stored.copy()
    bad[-1] = np.nan
    attending.memory.fill(bad, attending.v)
    after = attending.many()
    np.testing.assert_array_equal(after[:-1], before[:-1])
    assert np.isnan(after[-1]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["q", "k", "v"])
@each_heads
def test_what_is_not_finite_is_not_lost(heads: Heads, which: str, value: float) -> None:
    """In a query, a key or a value that a token sees: its output is not finite either."""
    attending = Attending(heads, 200, 3)
    k, v, queries = attending.stored.copy(), attending.v.copy(), attending.queries
    spoiled = np.ones(queries.shape[1], bool)  # query heads of the last token
    if which == "q":
        queries[2, :, 5] = value
    elif which == "v":
        v[100, :, 5] = value
    else:
        k[100, :, 5] = value
        if np.isinf(value):  # a score of minus infinity is a weight of zero, and no loss
            spoiled = queries[2, :, 5] * value > 0
    attending.memory.fill(k, v)
    for found in (attending.many()[2], attending.one(2)):
        assert not np.isfinite(found).all(axis=1)[spoiled].any()
