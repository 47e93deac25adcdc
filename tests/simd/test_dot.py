"""The int8 dot product is exact, on every instruction set, for every range of weights."""

import numpy as np
import pytest

from edgeqwen.simd.isa import AVX2, AVX512_VNNI, AVX_VNNI, GENERIC, NEON, NEON_DOTPROD
from tests.isas import ALL_ISAS, address
from tests.simd.dot_kernels import GROUPS, Dot, dots

RANDOM_BLOCKS = 64
# Every limit that a format of GGUF has, the edges of what int16 holds, and all of a byte.
RANGES = [(limit, False) for limit in (3, 15, 31, 63, 127, 128, 129, 130, 255)]
RANGES += [(limit, True) for limit in (8, 31, 63, 127, 128)]
# Where int32 holds every product, the limit changes nothing in the code.
CASES = [
    Dot(isa, limit, signed)
    for isa in ALL_ISAS
    for limit, signed in (RANGES if isa.dot != "widen" else [(255, False), (128, True)])
]


def blocks(dot: Dot) -> tuple[np.ndarray, np.ndarray]:
    """Weights [n][8][lanes][4] and activations [n][8][4], extremes first, then random ones."""
    rng = np.random.default_rng(dot.limit)
    extremes = [dot.lowest, dot.highest, 0, 1, dot.highest // 2]
    weights, activations = [], []
    for w in extremes:
        for a in (127, -127, 0, 1, -1):
            weights.append(np.full((GROUPS, dot.isa.lanes, 4), w))
            activations.append(np.full((GROUPS, 4), a))
    for signs in (2, 3):  # extremes mixed, so that every pair and sum of pairs is met
        for _ in range(RANDOM_BLOCKS):
            weights.append(rng.choice(extremes[:signs], (GROUPS, dot.isa.lanes, 4)))
            activations.append(rng.choice([127, -127, 0][:signs], (GROUPS, 4)))
    for _ in range(RANDOM_BLOCKS):
        weights.append(rng.integers(dot.lowest, dot.highest + 1, (GROUPS, dot.isa.lanes, 4)))
        activations.append(rng.integers(-127, 128, (GROUPS, 4)))
    return np.array(weights), np.array(activations)


@pytest.mark.parametrize("dot", CASES, ids=str)
def test_dot_is_exact(dot: Dot) -> None:
    isa = dot.isa
    weights, activations = blocks(dot)
    n = len(weights)
    start = np.random.default_rng(1).integers(-(2**24), 2**24, (n, isa.lanes)).astype(np.int32)
    weight_bytes = weights.astype(np.int16).astype(np.uint8)  # two's complement
    activation_bytes = activations.astype(np.int8)
    out = np.zeros((n, isa.lanes), np.int32)
    dots(
        dot,
        address(start),
        address(weight_bytes),
        address(activation_bytes),
        address(out),
        n,
        isa.lanes,
    )
    shifted = weights + isa.dot_excess(dot.limit, dot.signed)
    np.testing.assert_array_equal(out, start + np.einsum("ngrk,ngk->nr", shifted, activations))


def test_what_each_instruction_can_not_multiply() -> None:
    """Unsigned by signed on x86, signed by signed on ARM; whoever sums makes up for the shift."""
    for isa in (AVX512_VNNI, AVX_VNNI):
        assert isa.dot_excess(128, signed=True) == 128
        assert isa.dot_excess(255, signed=False) == 0
    for isa in (NEON_DOTPROD, NEON):
        assert isa.dot_excess(127, signed=False) == 0
        assert isa.dot_excess(255, signed=False) == -128
        assert isa.dot_excess(128, signed=True) == 0
    # Pairs of products are summed in int16: 2 * 127 * 129 is the most that it holds.
    assert AVX2.dot_excess(129, signed=False) == 0
    assert AVX2.dot_excess(130, signed=False) == -128
    assert AVX2.dot_excess(128, signed=True) == 0
    assert GENERIC.dot_excess(255, signed=False) == GENERIC.dot_excess(128, signed=True) == 0
