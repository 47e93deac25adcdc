"""Activations written into panels: as integers or floats, exactly as the twin says."""

import numpy as np
import pytest

from edgeqwen.formats import F32, IQ4_NL, Q2_K, Q4_0, Q4_K, Q6_K, Q8_0
from edgeqwen.formats.integer import IntegerFormat
from edgeqwen.formats.panel import Panel
from edgeqwen.kernels.panels import PANELIZE, panelize
from edgeqwen.simd.isa import AVX2, AVX512_VNNI, GENERIC, Isa
from tests.isas import GENERIC_8, GENERIC_16, NATIVE, TEST_ISAS, each_isa
from tests.kernels.running import run, step_state
from tests.oracles.kernels import panels

UNWRITTEN = 0xEE
# A format of each kind of panel: with a correction everywhere, or on some CPUs, in halves, with
# scaled sums, in halves or not, and floats.
KINDS = (Q4_0, Q8_0, Q6_K, Q4_K, Q2_K, F32)
PANELS = [f.gemm_tiling(isa).panel for isa in TEST_ISAS for f in KINDS]
PANELS += [f.gemv_tiling(NATIVE).panel for f in KINDS]
# For kernels that only make use of panels: each width of vectors, each kind of panel.
SOME_PANELS = [p for p in PANELS if p.isa is NATIVE]
SOME_PANELS += [
    Q8_0.gemm_tiling(GENERIC).panel,
    F32.gemm_tiling(GENERIC_8).panel,
    Q4_0.gemm_tiling(GENERIC_16).panel,
]


def name(panel: Panel) -> str:
    return panel.token_name


def expected(x: np.ndarray, panel: Panel) -> np.ndarray:
    return panels(x, panel, unwritten=UNWRITTEN)


def same(found: np.ndarray, twin: np.ndarray, panel: Panel) -> None:
    """Byte for byte, but for scales: the compiler may divide by 127 or multiply by 1 / 127."""
    first = end = 0
    if panel.integers:
        first = 32 * panel.n_tokens
        end = first + 4 * (1 + panel.groups * panel.scaled_sums) * panel.n_tokens
    scales = [a[:, :, first:end].copy().view(np.uint32).astype(np.int64) for a in (found, twin)]
    # One place in the last digit, and another where a sum is multiplied by the scale.
    assert (np.abs(scales[0] - scales[1]) <= 2).all()
    for part in (slice(None, first), slice(end, None)):
        np.testing.assert_array_equal(found[:, :, part], twin[:, :, part])


def panelized(x: np.ndarray, panel: Panel) -> np.ndarray:
    n_panels, n_blocks = -(-len(x) // panel.n_tokens), x.shape[1] // 32
    out = np.full((n_panels, n_blocks, panel.block_bytes), UNWRITTEN, np.uint8)
    arguments = {"state": step_state(len(x)), "x": x, "n_blocks": n_blocks, "panels": out}
    run(panelize, panel, PANELIZE, n_panels, arguments)
    return out


@pytest.mark.parametrize("panel", PANELS, ids=name)
def test_random_activations(panel: Panel) -> None:
    rng = np.random.default_rng(0)
    for n_tokens, n_blocks in ((1, 1), (panel.n_tokens, 3), (2 * panel.n_tokens + 1, 2)):
        x = rng.standard_normal((n_tokens, 32 * n_blocks)).astype(np.float32)
        x *= 10.0 ** rng.integers(-3, 4, (n_tokens, 1)).astype(np.float32)
        same(panelized(x, panel), expected(x, panel), panel)


@pytest.mark.parametrize("panel", PANELS, ids=name)
def test_extreme_activations(panel: Panel) -> None:
    ties = np.arange(-63.5, 63.5, 4)  # halves go to even when the largest is 127
    rows = [
        np.zeros(32),
        np.full(32, -0.0),
        np.resize(np.append(ties[:31], 127), 32),
        np.resize([3.4e38, -3.4e38, 1e38], 32),
        np.resize([1e-36, 9e-37], 32),
        np.resize([9.9e-37, -1e-38, 0], 32),
        np.resize([1e-45, -1e-42], 32),
        np.resize([5.0, -5.0], 32),
        np.append(np.full(31, 1e-7), 1e4),
        np.append(np.full(31, 0.499 / 127), 1),
    ]
    x = np.array(rows, np.float32)
    same(panelized(x, panel), expected(x, panel), panel)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("panel", [p for p in PANELS if p.integers and p.n_tokens > 1], ids=name)
def test_what_is_not_finite_spoils_its_block_and_no_other(panel: Panel, value: float) -> None:
    """Wherever it stands, the block's scale becomes NaN, so that no product can lose it."""
    n_tokens, width = 3, panel.n_tokens
    x = np.random.default_rng(1).standard_normal((n_tokens, 96)).astype(np.float32)
    good = expected(x, panel)
    for column in (32, 40, 47, 63):
        bad = x.copy()
        bad[1, column] = value
        found = panelized(bad, panel)
        scales = found[0, :, 32 * width : 36 * width].copy().view(np.float32)[:, :n_tokens]
        assert np.isnan(scales).tolist() == [[False] * 3, [False, True, False], [False] * 3]
        same(found[:, [0, 2]], good[:, [0, 2]], panel)


@each_isa()
@pytest.mark.parametrize("format_", [Q4_0, Q8_0, Q6_K, IQ4_NL], ids=lambda f: f.name)
def test_corrections_make_up_for_what_the_dot_product_computes(
    isa: Isa, format_: IntegerFormat
) -> None:
    """A weight is q + offset; the instructions multiply q + excess."""
    integers = format_.integers_on(isa)
    excess = isa.dot_excess(integers.limit, integers.signed)
    assert format_.panel_offset(isa) + excess == integers.offset


def test_the_corrections_of_known_instruction_sets() -> None:
    assert Q4_0.panel_offset(AVX2) == Q4_0.panel_offset(AVX512_VNNI) == -8
    assert (Q8_0.panel_offset(AVX2), Q8_0.panel_offset(AVX512_VNNI)) == (0, -128)
    assert F32.gemm_tiling(AVX2).panel.offset == 0
