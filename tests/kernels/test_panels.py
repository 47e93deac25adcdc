"""Activations written into panels: as integers or floats, exactly as the twin says."""

import numpy as np
import pytest

from edgeqwen.formats import F32, FORMATS, Q4_0, Q8_0, Format, Tiling
from edgeqwen.kernels.panels import PANELIZE, panelize
from edgeqwen.simd.isa import AVX2, AVX512_VNNI, GENERIC, Isa
from tests.isas import GENERIC_8, GENERIC_16, NATIVE, TEST_ISAS, each_isa
from tests.kernels.running import run, step_state
from tests.oracles.kernels import panels

UNWRITTEN = 0xEE
# One format of each kind of panel: with a correction everywhere, on some CPUs, and floats.
TILINGS = [f.gemm_tiling(isa) for isa in TEST_ISAS for f in (Q4_0, Q8_0, F32)]
TILINGS += [f.gemv_tiling(NATIVE) for f in FORMATS.values()]
# For kernels that only make use of panels: each width of vectors, each kind of panel.
SOME_TILINGS = [t for t in TILINGS if t.isa is NATIVE]
SOME_TILINGS += [
    Q8_0.gemm_tiling(GENERIC),
    F32.gemm_tiling(GENERIC_8),
    Q4_0.gemm_tiling(GENERIC_16),
]


def name(tiling: Tiling) -> str:
    return f"{tiling.isa.name}-{tiling.format.name}-{tiling.n_tokens}"


def expected(x: np.ndarray, tiling: Tiling) -> np.ndarray:
    return panels(
        x,
        tiling.n_tokens,
        integers=tiling.format.integer_activations,
        offset=tiling.format.panel_offset(tiling.isa),
        unwritten=UNWRITTEN,
    )


def same(found: np.ndarray, twin: np.ndarray, tiling: Tiling) -> None:
    """Byte for byte, but for scales: the compiler may divide by 127 or multiply by 1 / 127."""
    first, end = 32 * tiling.n_tokens, 36 * tiling.n_tokens
    if not tiling.format.integer_activations:
        first, end = 0, 0
    scales = [a[:, :, first:end].copy().view(np.uint32).astype(np.int64) for a in (found, twin)]
    assert (np.abs(scales[0] - scales[1]) <= 1).all()
    for part in (slice(None, first), slice(end, None)):
        np.testing.assert_array_equal(found[:, :, part], twin[:, :, part])


def panelized(x: np.ndarray, tiling: Tiling) -> np.ndarray:
    n_panels, n_blocks = -(-len(x) // tiling.n_tokens), x.shape[1] // 32
    out = np.full((n_panels, n_blocks, tiling.panel_block_bytes), UNWRITTEN, np.uint8)
    arguments = {"state": step_state(len(x)), "x": x, "n_blocks": n_blocks, "panels": out}
    run(panelize, tiling, PANELIZE, n_panels, arguments)
    return out


@pytest.mark.parametrize("tiling", TILINGS, ids=name)
def test_random_activations(tiling: Tiling) -> None:
    rng = np.random.default_rng(0)
    for n_tokens, n_blocks in ((1, 1), (tiling.n_tokens, 3), (2 * tiling.n_tokens + 1, 2)):
        x = rng.standard_normal((n_tokens, 32 * n_blocks)).astype(np.float32)
        x *= 10.0 ** rng.integers(-3, 4, (n_tokens, 1)).astype(np.float32)
        same(panelized(x, tiling), expected(x, tiling), tiling)


@pytest.mark.parametrize("tiling", TILINGS, ids=name)
def test_extreme_activations(tiling: Tiling) -> None:
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
    same(panelized(x, tiling), expected(x, tiling), tiling)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "tiling", [t for t in TILINGS if t.format.integer_activations and t.n_tokens > 1], ids=name
)
def test_what_is_not_finite_spoils_its_block_and_no_other(tiling: Tiling, value: float) -> None:
    """Wherever it stands, the block's scale becomes NaN, so that no product can lose it."""
    n_tokens, width = 3, tiling.n_tokens
    x = np.random.default_rng(1).standard_normal((n_tokens, 96)).astype(np.float32)
    good = expected(x, tiling)
    for column in (32, 40, 47, 63):
        bad = x.copy()
        bad[1, column] = value
        found = panelized(bad, tiling)
        scales = found[0, :, 32 * width : 36 * width].copy().view(np.float32)[:, :n_tokens]
        assert np.isnan(scales).tolist() == [[False] * 3, [False, True, False], [False] * 3]
        same(found[:, [0, 2]], good[:, [0, 2]], tiling)


@each_isa()
@pytest.mark.parametrize("format_", [Q4_0, Q8_0], ids=lambda f: f.name)
def test_corrections_make_up_for_what_the_dot_product_computes(isa: Isa, format_: Format) -> None:
    """A weight is q + offset; the instructions multiply q + excess."""
    excess = isa.dot_excess(format_.limit, format_.signed)  # type: ignore[attr-defined]
    assert format_.panel_offset(isa) + excess == format_.offset  # type: ignore[attr-defined]


def test_the_corrections_of_known_instruction_sets() -> None:
    assert Q4_0.panel_offset(AVX2) == Q4_0.panel_offset(AVX512_VNNI) == -8
    assert (Q8_0.panel_offset(AVX2), Q8_0.panel_offset(AVX512_VNNI)) == (0, -128)
    assert F32.panel_offset(AVX2) == 0
