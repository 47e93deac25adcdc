"""The twin of the KV cache's types: small cases by hand, and both ways of laying out agree."""

import numpy as np
import pytest

from tests.oracles import kv_cache

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")


@pytest.mark.parametrize("is_value", [False, True])
@pytest.mark.parametrize("cache_type", TYPES)
def test_what_was_laid_out_is_read_back(cache_type: str, is_value: bool) -> None:
    x = np.random.default_rng(0).standard_normal((128, 64)).astype(np.float32)
    memory = kv_cache.encode(x, cache_type, is_value=is_value)
    found = kv_cache.decode(memory, cache_type, 64, is_value=is_value)
    np.testing.assert_array_equal(found, kv_cache.held(x, cache_type))
    assert (np.abs(found - x) <= kv_cache.largest_errors(x, cache_type)).all()


def test_codes_and_scales() -> None:
    x = np.zeros(32, np.float32)
    x[:3] = 127, -3.4, 0.6
    scales, codes = kv_cache.quantize(x, "q8_0")
    assert (scales.tolist(), codes[:4].tolist()) == (1.0, [127, -3, 1, 0])
    # The number of largest magnitude is -8, whatever its sign.
    scales, codes = kv_cache.quantize(x / 127 * 16, "q4_0")
    assert (scales.tolist(), codes[:2].tolist()) == (-2.0, [-8, 0])


def test_where_4_bits_lie() -> None:
    x = np.zeros((64, 32), np.float32)
    x[5, 3], x[5, 19] = -8, 7
    keys = kv_cache.encode(x, "q4_0", is_value=False)[64:].reshape(-1)[: 16 * 32].reshape(16, 32)
    values = kv_cache.encode(x, "q4_0", is_value=True)[128:].reshape(64, 16)
    assert keys[3, 5] == values[5, 3] == 0x78


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cache_type", ["q8_0", "q4_0"])
def test_what_is_not_finite_spoils_its_32(cache_type: str, bad: float) -> None:
    x = np.ones(64, np.float32)
    x[40] = bad
    found = kv_cache.held(x, cache_type)
    assert np.isfinite(found[:32]).all()
    assert np.isnan(found[32:]).all()
