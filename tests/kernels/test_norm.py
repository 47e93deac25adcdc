"""RMSNorm against the twin, and what it puts into panels."""

import numpy as np
import pytest

from edgeqwen.formats import Tiling
from edgeqwen.kernels.norm import NORM, norm
from tests.isas import NATIVE
from tests.kernels.running import bits, run, step_state
from tests.kernels.test_panels import SOME_TILINGS, UNWRITTEN, expected, name, same
from tests.oracles import kernels as twins

EPSILON = 1e-6
each_tiling = pytest.mark.parametrize("tiling", SOME_TILINGS, ids=name)


def normed(
    x: np.ndarray, weight: np.ndarray, tiling: Tiling, *, last_only: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the plain result and the panels."""
    n_panels, n_blocks = -(-len(x) // tiling.n_tokens), x.shape[1] // 32
    if last_only:
        n_panels = 1
    plain = np.full_like(x, 777)
    panels = np.full((n_panels, n_blocks, tiling.panel_block_bytes), UNWRITTEN, np.uint8)
    arguments = {
        "state": step_state(len(x)),
        "x": x,
        "n_blocks": n_blocks,
        "weight": weight,
        "epsilon": bits(EPSILON),
        "normed": plain,
        "panels": panels,
        "last_only": int(last_only),
    }
    run(norm, tiling, NORM, n_panels, arguments)
    return plain, panels


def sample(n_tokens: int, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_columns)
    x = rng.standard_normal((n_tokens, n_columns)).astype(np.float32)
    x[:, 3] *= 1000  # massive activations, as real models have
    return x, rng.normal(1, 0.5, n_columns).astype(np.float32)


def check(found: np.ndarray, x: np.ndarray, weight: np.ndarray) -> None:
    """All terms of the sum of squares are positive: each rounding is a relative error."""
    exact = twins.norm(x, weight, EPSILON)
    bound = (x.shape[1] / 2 + 6) * twins.UNIT * np.abs(exact)
    assert (np.abs(found - exact) <= bound).all()


@each_tiling
def test_norm(tiling: Tiling) -> None:
    for n_tokens, n_columns in ((1, 32), (tiling.n_tokens, 96), (2 * tiling.n_tokens + 1, 896)):
        x, weight = sample(n_tokens, n_columns)
        plain, panels = normed(x, weight, tiling)
        check(plain, x, weight)
        same(panels, expected(plain, tiling), tiling)


@each_tiling
def test_the_last_token_alone(tiling: Tiling) -> None:
    for n_tokens in (1, tiling.n_tokens + 2):
        x, weight = sample(n_tokens, 96)
        plain, panels = normed(x, weight, tiling, last_only=True)
        check(plain[-1:], x[-1:], weight)
        assert (plain[:-1] == 777).all()
        same(panels, expected(plain[-1:], tiling), tiling)


@pytest.mark.parametrize("tiling", [t for t in SOME_TILINGS if t.isa is NATIVE], ids=name)
def test_zero_and_tiny_activations(tiling: Tiling) -> None:
    """Epsilon keeps the root from being zero, whose reciprocal would be infinite."""
    x = np.zeros((2, 64), np.float32)
    x[1] = 1e-20
    plain, panels = normed(x, np.ones(64, np.float32), tiling)
    assert not plain[0].any()
    np.testing.assert_allclose(plain[1], 1e-17, rtol=1e-6)
    same(panels, expected(plain, tiling), tiling)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tiling", SOME_TILINGS[:3], ids=name)
def test_what_is_not_finite_reaches_the_whole_token(tiling: Tiling, bad: float) -> None:
    x, weight = sample(3, 64)
    x[1, 40] = bad
    plain, _ = normed(x, weight, tiling)
    assert np.isnan(plain[1, 40])
    assert np.isnan(plain[1]).all() or (plain[1] == 0).sum() == 63  # x / inf is 0
    check(plain[[0, 2]], x[[0, 2]], weight)
