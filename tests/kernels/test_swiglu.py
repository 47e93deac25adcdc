"""SwiGLU against the twin, over all gates that float32 holds."""

import numpy as np
import pytest

from edgeqwen.formats.panel import Panel
from edgeqwen.kernels.swiglu import SWIGLU, swiglu
from tests.kernels.running import run, step_state
from tests.kernels.test_panels import SOME_PANELS, UNWRITTEN, expected, name, same
from tests.oracles import kernels as twins

# exp is within 3e-7, and three operations round after it.
RELATIVE = 3e-7 + 4 * twins.UNIT
each_panel = pytest.mark.parametrize("panel", SOME_PANELS, ids=name)


def products(
    gate: np.ndarray, up: np.ndarray, panel: Panel, blocks_per_chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the plain result, which replaces the gate, and the panels."""
    n_tokens, n_columns = gate.shape
    n_panels, n_blocks = -(-n_tokens // panel.n_tokens), n_columns // 32
    parts = -(-n_blocks // blocks_per_chunk)
    # Between gate and up, and after them, lies something else.
    both = np.full((n_tokens, 2 * n_columns + 32), 777, np.float32)
    both[:, :n_columns], both[:, n_columns + 16 : -16] = gate, up
    panels = np.full((n_panels, n_blocks, panel.block_bytes), UNWRITTEN, np.uint8)
    arguments = {
        "state": step_state(n_tokens),
        "gate_up": both,
        "stride": both.strides[0],
        "up_offset": 4 * (n_columns + 16),
        "n_blocks": n_blocks,
        "blocks_per_chunk": blocks_per_chunk,
        "chunks_per_panel": parts,
        "panels": panels,
    }
    run(swiglu, panel, SWIGLU, n_panels * parts, arguments)
    np.testing.assert_array_equal(both[:, n_columns + 16 : -16], up)
    assert (both[:, n_columns : n_columns + 16] == 777).all()
    assert (both[:, -16:] == 777).all()
    return both[:, :n_columns], panels


@each_panel
def test_swiglu(panel: Panel) -> None:
    rng = np.random.default_rng(0)
    for n_tokens, n_blocks, per_chunk in ((1, 1, 16), (panel.n_tokens + 1, 5, 2)):
        gate, up = (rng.standard_normal((n_tokens, 32 * n_blocks)).astype("f4") for _ in "gu")
        gate *= 8
        found, panels = products(gate, up, panel, per_chunk)
        exact = twins.swiglu(gate, up)
        assert (np.abs(found - exact) <= RELATIVE * np.abs(exact)).all()
        same(panels, expected(found, panel), panel)


@each_panel
def test_all_gates(panel: Panel) -> None:
    """Far below zero the gate is closed, whatever its size; exp(-gate) is beyond float32 there."""
    far = np.array([87, 88, 88.4, 89, 100, 127, 200, 1e3, 1e6, 1e30, 3e38], np.float32)
    near = np.linspace(-87, 87, 4096 - 2 * len(far)).astype(np.float32)
    gate = np.concatenate([far, -far, near]).reshape(1, -1)
    found, _ = products(gate, np.ones_like(gate), panel, 16)
    exact = twins.swiglu(gate, np.ones_like(gate))
    # What is nearly zero may be zero: below -87, silu is smaller than 1.5e-36.
    assert (np.abs(found - exact) <= RELATIVE * np.abs(exact) + 1.5e-36).all()


@pytest.mark.parametrize("panel", SOME_PANELS[:3], ids=name)
def test_what_is_not_finite_is_not_lost(panel: Panel) -> None:
    gate, up = np.ones((1, 160), np.float32), np.ones((1, 160), np.float32)
    gate[0, 5], up[0, 40], gate[0, 70] = np.nan, np.nan, np.inf
    gate[0, 130] = -np.inf  # NaN as by its definition: -inf * 0
    found, panels = products(gate, up, panel, 16)
    assert np.isnan(found[0, [5, 40, 130]]).all()
    assert found[0, 70] == np.inf
    assert np.isfinite(np.delete(found[0], [5, 40, 70, 130])).all()
    if panel.integers:
        width = panel.n_tokens
        scales = panels[0, :, 32 * width : 32 * width + 4].copy().view(np.float32).ravel()
        assert np.isnan(scales).tolist() == [True, True, True, False, True]
