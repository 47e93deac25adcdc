"""RMSNorm against the twin, and what it puts into panels."""

import numpy as np
import pytest

from edgeqwen.formats.panel import Panel
from edgeqwen.kernels.norm import NORM, norm
from tests.isas import NATIVE, address
from tests.kernels.running import bits, run, step_state
from tests.kernels.test_panels import SOME_PANELS, UNWRITTEN, expected, name, same
from tests.oracles import kernels as twins

EPSILON = 1e-6
each_panel = pytest.mark.parametrize("panel", SOME_PANELS, ids=name)


def normed(
    x: np.ndarray, weight: np.ndarray, panel: Panel, *, last_only: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the plain result and the panels."""
    n_panels, n_blocks = -(-len(x) // panel.n_tokens), x.shape[1] // 32
    if last_only:
        n_panels = 1
    plain = np.full_like(x, 777)
    panels = np.full((n_panels, n_blocks, panel.block_bytes), UNWRITTEN, np.uint8)
    arguments = {
        "state": step_state(len(x)),
        "x": x,
        "n_blocks": n_blocks,
        "weight": weight,
        "epsilon": bits(EPSILON),
        "normed": plain,
        "panels": panels,
        "last_only": int(last_only),
        "worker_bytes": 0,
    }
    run(norm, panel, NORM, n_panels, arguments)
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


@each_panel
def test_norm(panel: Panel) -> None:
    for n_tokens, n_columns in ((1, 32), (panel.n_tokens, 96), (2 * panel.n_tokens + 1, 896)):
        x, weight = sample(n_tokens, n_columns)
        plain, panels = normed(x, weight, panel)
        check(plain, x, weight)
        same(panels, expected(plain, panel), panel)


@each_panel
def test_the_last_token_alone(panel: Panel) -> None:
    for n_tokens in (1, panel.n_tokens + 2):
        x, weight = sample(n_tokens, 96)
        plain, panels = normed(x, weight, panel, last_only=True)
        check(plain[-1:], x[-1:], weight)
        assert (plain[:-1] == 777).all()
        same(panels, expected(plain[-1:], panel), panel)


@pytest.mark.parametrize("panel", [p for p in SOME_PANELS if p.n_tokens == 1], ids=name)
@pytest.mark.parametrize("last_only", [False, True])
def test_each_thread_may_have_its_own(panel: Panel, last_only: bool) -> None:
    x, weight = sample(3 if last_only else 1, 96)
    worker_bytes = 4096
    memory = np.full((4, worker_bytes), UNWRITTEN, np.uint8)
    arguments = {
        "state": step_state(len(x)),
        "x": x,
        "n_blocks": 3,
        "weight": weight,
        "epsilon": bits(EPSILON),
        "normed": memory,
        "panels": memory[0, 1024:],
        "last_only": int(last_only),
        "worker_bytes": worker_bytes,
    }
    record = np.zeros(1, NORM)
    for field, value in arguments.items():
        record[field] = address(value) if isinstance(value, np.ndarray) else value
    for worker in (0, 2):
        norm(panel, address(record), 0, worker)
        plain = memory[worker, : 4 * 96].view(np.float32)[None]
        check(plain, x[-1:], weight)
        size = 3 * panel.block_bytes
        panels = memory[worker, 1024 : 1024 + size].reshape(1, 3, -1)
        same(panels, expected(plain, panel), panel)
        assert (memory[worker, 1024 + size :] == UNWRITTEN).all()
    assert (memory[[1, 3]] == UNWRITTEN).all()


@pytest.mark.parametrize("panel", [p for p in SOME_PANELS if p.isa is NATIVE], ids=name)
def test_zero_and_tiny_activations(panel: Panel) -> None:
    """Epsilon keeps the root from being zero, whose reciprocal would be infinite."""
    x = np.zeros((2, 64), np.float32)
    x[1] = 1e-20
    plain, panels = normed(x, np.ones(64, np.float32), panel)
    assert not plain[0].any()
    np.testing.assert_allclose(plain[1], 1e-17, rtol=1e-6)
    same(panels, expected(plain, panel), panel)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("panel", SOME_PANELS[:3], ids=name)
def test_what_is_not_finite_reaches_the_whole_token(panel: Panel, bad: float) -> None:
    x, weight = sample(3, 64)
    x[1, 40] = bad
    plain, _ = normed(x, weight, panel)
    assert np.isnan(plain[1, 40])
    assert np.isnan(plain[1]).all() or (plain[1] == 0).sum() == 63  # x / inf is 0
    check(plain[[0, 2]], x[[0, 2]], weight)
