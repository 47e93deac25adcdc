"""Rotary embedding against the twin, and where keys and values go in the cache."""

import itertools

import numpy as np
import pytest

from edgeqwen.kernels.rope import ANGLES, ROPE, angles, rope
from tests.kernels.attention_cases import HEADS, Heads
from tests.kernels.kv_memory import KvMemory
from tests.kernels.running import bits, run, step_state
from tests.oracles import kernels as twins
from tests.oracles.kv_cache import held, largest_errors

# All cache types, all head sizes, the narrowest and the widest vectors.
each_heads = pytest.mark.parametrize(
    "heads", [HEADS[i] for i in (0, 1, 3, 5, 7, 8, 9, 11, 12)], ids=str
)
# Angles depend neither on the cache nor on the group.
each_size = pytest.mark.parametrize("heads", [HEADS[i] for i in (0, 1, 3, 5)], ids=str)
Q_SCALE = 0.18


def frequencies(head_dim: int) -> np.ndarray:
    return (1e6 ** (-np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)


@each_size
@pytest.mark.parametrize(("n_past", "n_tokens"), [(0, 1), (1, 70), (131_000, 3), (2**24 - 5, 4)])
def test_angles(heads: Heads, n_past: int, n_tokens: int) -> None:
    """Positions to the last that any file may ask for: sines of large angles stay exact."""
    scale = 1.2
    out = np.full((n_tokens + 1, heads.head_dim), 777, np.float32)
    arguments = {
        "state": step_state(n_tokens, n_past),
        "frequencies": frequencies(heads.head_dim),
        "scale": bits(scale),
        "angles": out,
    }
    run(angles, heads.shape(one_token=True), ANGLES, n_tokens, arguments)
    exact = twins.angles(
        np.arange(n_past, n_past + n_tokens), frequencies(heads.head_dim), float(np.float32(scale))
    )
    assert np.abs(out[:-1] - exact).max() <= 3 * twins.UNIT * scale
    assert (out[-1] == 777).all()


@each_heads
@pytest.mark.parametrize(("n_past", "n_tokens"), [(0, 1), (0, 5), (29, 7), (60, 8), (253, 6)])
def test_rope(heads: Heads, n_past: int, n_tokens: int) -> None:
    """Across the borders of tiles (32 and 64 positions); only the new tokens' places change."""
    rng = np.random.default_rng(n_past)
    n_kv, size = heads.n_kv_heads, heads.head_dim
    n_heads = n_kv * heads.group
    widths = np.cumsum([0, n_heads, n_kv, n_kv]) * size
    qkv = rng.standard_normal((n_tokens, widths[-1] + 24)).astype(np.float32)
    qkv[:, widths[1] : widths[2]] += 300  # as the biases of real keys are
    before = qkv.copy()
    turned = twins.angles(np.arange(n_past, n_past + n_tokens), frequencies(size), 1)
    turned = turned.astype(np.float32)
    memory = KvMemory(n_kv, size, heads.cache_type, 300, garbage=77)
    untouched = memory.memory.copy()
    biases = np.zeros((n_kv, size), np.float32)
    if heads.keeps_biases_apart:
        biases = rng.normal(300, 100, (n_kv, size)).astype(np.float32)
    arguments = {
        "state": step_state(n_tokens, n_past, segments=memory.address),
        "angles": turned,
        "qkv": qkv,
        "stride": qkv.strides[0],
        "n_kv_heads": n_kv,
        "q_scale": bits(Q_SCALE),
        **memory.arguments(),
        "biases": biases if heads.keeps_biases_apart else 0,
    }
    run(rope, heads.shape(one_token=True), ROPE, n_tokens, arguments)

    q, k, v = (before[:, a:b].reshape(n_tokens, -1, size) for a, b in itertools.pairwise(widths))
    bound = 3 * twins.UNIT * np.sqrt(2)
    exact_q = twins.rotate(q, turned) * np.float32(Q_SCALE)
    found_q = qkv[:, : widths[1]].reshape(n_tokens, -1, size)
    assert (np.abs(found_q - exact_q) <= 2 * bound * np.abs(q).max() * Q_SCALE).all()
    np.testing.assert_array_equal(qkv[:, widths[1] :], before[:, widths[1] :])
    exact_k = twins.rotate(k - biases, turned)
    loss = largest_errors(exact_k, heads.cache_type) + 2 * bound * np.abs(k).max()
    new = slice(n_past, n_past + n_tokens)
    for head in range(n_kv):
        keys, values = memory.tiles(head, 0), memory.tiles(head, 1)
        assert (np.abs(keys[new] - exact_k[:, head]) <= loss[:, head]).all()
        np.testing.assert_array_equal(values[new], held(v[:, head], heads.cache_type))
    for position in range(n_past, n_past + n_tokens):
        memory.forget(position)
    # Nothing else was written: these positions, other layers, what lies between segments.
    found = memory.memory.copy()
    memory.memory[:] = untouched
    for position in range(n_past, n_past + n_tokens):
        memory.forget(position)
    np.testing.assert_array_equal(found, memory.memory)


def test_keys_beyond_float16_become_infinite_and_not_garbage() -> None:
    heads = HEADS[0]
    qkv = np.zeros((1, (heads.group * 2 + 4) * 64), np.float32)
    first_key = heads.group * 2 * 64
    qkv[0, first_key : first_key + 3] = [1e5, -1e5, np.nan]
    memory = KvMemory(2, 64, "f16", 64)
    no_turn = np.concatenate([np.ones((1, 32)), np.zeros((1, 32))], axis=1).astype(np.float32)
    arguments = {
        "state": step_state(1, segments=memory.address),
        "angles": no_turn,
        "qkv": qkv,
        "stride": qkv.strides[0],
        "n_kv_heads": 2,
        "q_scale": bits(1),
        **memory.arguments(),
        "biases": 0,
    }
    run(rope, heads.shape(one_token=True), ROPE, 1, arguments)
    assert memory.tiles(0, 0)[0, :2].tolist() == [np.inf, -np.inf]
    assert np.isnan(memory.tiles(0, 0)[0, 2])
