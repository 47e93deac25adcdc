"""Moving cached keys and values to earlier positions, against the twin."""

import numpy as np
import pytest

from edgeqwen.kernels.shift import MOVE, SHIFT, shift
from tests.kernels.attention_cases import HEADS, Heads
from tests.kernels.kv_memory import KvMemory
from tests.kernels.running import run
from tests.oracles import kernels as twins
from tests.oracles.kv_cache import largest_errors

# All cache types, all head sizes, the narrowest and the widest vectors.
each_heads = pytest.mark.parametrize(
    "heads", [HEADS[i] for i in (0, 1, 3, 5, 7, 8, 9, 11, 12)], ids=str
)


def frequencies(head_dim: int) -> np.ndarray:
    return (1e6 ** (-np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)


def turn(distance: int, head_dim: int) -> np.ndarray:
    angle = -distance * frequencies(head_dim).astype(np.float64)
    return np.concatenate([np.cos(angle), np.sin(angle)]).astype(np.float32)


def move(memory: KvMemory, heads: Heads, keep: int, n_dropped: int, n_tokens: int) -> None:
    """Runs the kernel for the one layer that the memory uses."""
    moved = np.array([(memory.address, memory.address, keep, n_tokens, n_dropped)], MOVE)
    where = memory.arguments()
    arguments = {
        "move": moved,
        "turn": turn(n_dropped, heads.head_dim),
        "n_kv_heads": heads.n_kv_heads,
        "layer_bytes": memory.memory.strides[1],
        "head_bytes": where["head_bytes"],
        "v_offset": where["v_offset"],
        "scratch": np.zeros((2, 2 * heads.head_dim), np.float32),
        "scratch_bytes": 8 * heads.head_dim,
    }
    run(shift, heads.shape(one_token=True), SHIFT, heads.n_kv_heads * (memory.layer + 2), arguments)


@each_heads
@pytest.mark.parametrize(
    ("keep", "n_dropped", "n_tokens"),
    [(0, 1, 2), (5, 32, 40), (30, 7, 300), (3, 256, 600), (200, 131, 520), (4, 90, 94)],
)
def test_shift(heads: Heads, keep: int, n_dropped: int, n_tokens: int) -> None:
    """Across tiles and segments, by more and by less than either; and where nothing is left."""
    rng = np.random.default_rng(n_tokens)
    shape = (n_tokens, heads.n_kv_heads, heads.head_dim)
    k, v = (rng.standard_normal(shape).astype(np.float32) for _ in "kv")
    k += 30  # as the biases of real keys do
    # Other layers hold numbers, too: their chunks run as well.
    memory = KvMemory(heads.n_kv_heads, heads.head_dim, heads.cache_type, n_tokens, garbage=7)
    held_k, held_v = memory.fill(k, v)
    gaps = memory.memory[1::2].copy()
    move(memory, heads, keep, n_dropped, n_tokens)
    exact_k, exact_v = twins.shifted(held_k, held_v, keep, n_dropped, frequencies(heads.head_dim))
    loss = largest_errors(exact_k, heads.cache_type) + 5 * twins.UNIT * np.abs(k).max()
    n = n_tokens - n_dropped
    for head in range(heads.n_kv_heads):
        keys, values = memory.tiles(head, 0), memory.tiles(head, 1)
        error = np.abs(keys[:n] - exact_k[:, head])
        assert (error <= loss[:, head]).all()
        np.testing.assert_array_equal(keys[:keep], held_k[:keep, head])
        np.testing.assert_array_equal(values[:n], exact_v[:, head])
    np.testing.assert_array_equal(memory.memory[1::2], gaps)


def test_a_key_that_is_not_finite_stays_so() -> None:
    heads = HEADS[0]
    k = np.ones((40, 2, 64), np.float32)
    k[20, 0, 3], k[21, 1, 40] = np.nan, np.inf
    memory = KvMemory(2, 64, "f16", 40)
    memory.fill(k, k)
    move(memory, heads, 2, 10, 40)
    keys = [memory.tiles(head, 0)[:30] for head in range(2)]
    assert np.argwhere(~np.isfinite(keys[0])).tolist() == [[10, 3], [10, 35]]
    assert np.argwhere(~np.isfinite(keys[1])).tolist() == [[11, 8], [11, 40]]
