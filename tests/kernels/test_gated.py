"""Gate and up in one pass: to the last bit what the products and SwiGLU give by themselves."""

from typing import Any

import numpy as np
import pytest

from edgeqwen.formats import F32, Q4_0, Q4_K, Q6_K, Q8_0, Format
from edgeqwen.formats.panel import Panel
from edgeqwen.kernels.gated import GATED, Gated, gated_gemm, gated_gemv
from edgeqwen.kernels.gemm import gemm, longest_stretch, scratch_bytes
from edgeqwen.kernels.gemv import gemv
from edgeqwen.kernels.products import PRODUCT
from edgeqwen.kernels.swiglu import SWIGLU, swiglu
from edgeqwen.simd.isa import Isa
from tests.formats.packing import pack, weights_of
from tests.isas import GENERIC_16, NATIVE
from tests.kernels.running import run, step_state
from tests.oracles.kernels import panels as panels_of

UNTOUCHED = 777.0
N_BLOCKS = 3  # of 32 columns that come of it
CASES = [
    (NATIVE, Q4_0, Q4_0),
    (NATIVE, Q8_0, Q6_K),
    pytest.param(NATIVE, Q4_K, Q6_K, marks=pytest.mark.thorough),
    pytest.param(NATIVE, F32, Q8_0, marks=pytest.mark.thorough),
    (GENERIC_16, Q4_0, F32),
]


def tilings(isa: Isa, format_: Format, next_: Format, one_token: bool) -> Gated:
    """Returns how gate and up of a format are multiplied, for a product with another."""
    if one_token:
        return Gated(format_.gemv_tiling(isa), next_.gemv_tiling(isa).panel)
    return Gated(format_.gemm_tiling(isa), next_.gemm_tiling(isa).panel)


def empty_panels(panel: Panel, n_tokens: int) -> np.ndarray:
    return np.full((-(-n_tokens // panel.n_tokens), N_BLOCKS, panel.block_bytes), 0xEE, np.uint8)


@pytest.mark.parametrize(("isa", "format_", "next_"), CASES, ids=lambda value: value.name)
@pytest.mark.parametrize("tiles_per_chunk", [2, 4])
@pytest.mark.parametrize("one_token", [True, False], ids=["one token", "many"])
def test_same_as_one_after_the_other(
    isa: Isa, format_: Format, next_: Format, tiles_per_chunk: int, one_token: bool
) -> None:
    gated = tilings(isa, format_, next_, one_token)
    tiling, panel = gated.tiling, gated.panel
    n_tokens = 1 if one_token else tiling.n_tokens + 2
    # More than one stretch, which GEMM works on at a time.
    row_tiles = 2 if one_token else longest_stretch(tiling) // format_.tile_blocks + 1
    n_columns, half = row_tiles * format_.tile_columns, 32 * N_BLOCKS
    rows = weights_of(format_, 2 * half, row_tiles)
    x = np.random.default_rng(0).standard_normal((n_tokens, n_columns)).astype(np.float32)
    worker_bytes = scratch_bytes(tiling, n_columns // 32, 2 * tiles_per_chunk, n_tokens)
    outputs = [np.full((n_tokens, 2 * half + 16), UNTOUCHED, np.float32) for _ in range(2)]
    hidden = [empty_panels(panel, n_tokens) for _ in range(2)]
    product: dict[str, Any] = {
        "state": step_state(n_tokens),
        "weights": pack(format_, rows),
        "n_blocks": n_columns // 32,
        "n_tiles": 2 * half // 16,
        "ranges": 1,
        "tiles_per_chunk": tiles_per_chunk,
        "panels": panels_of(x, tiling.panel, unwritten=0xFF),
        "panels_of_worker": 0,
        "stride": outputs[0].strides[0],
        "bias": 0,
        "accumulate": 0,
        "scratch": np.full(2 * worker_bytes, 0xFF, np.uint8),
        "scratch_bytes": worker_bytes,
    }
    n_chunks = -(-product["n_tiles"] // tiles_per_chunk)
    apart = product | {"output": outputs[0]}
    run(gemv if one_token else gemm, tiling, PRODUCT, n_chunks, apart)
    after = {
        "state": step_state(n_tokens),
        "gate_up": outputs[0],
        "stride": outputs[0].strides[0],
        "up_offset": 4 * half,
        "n_blocks": N_BLOCKS,
        "blocks_per_chunk": N_BLOCKS,
        "chunks_per_panel": 1,
        "panels": hidden[0],
    }
    run(swiglu, panel, SWIGLU, len(hidden[0]), after)
    together = product | {
        "output": outputs[1],
        "n_tiles": half // 16,
        "ranges": 2,
        "up_offset": 4 * half,
        "hidden": hidden[1],
        "hidden_blocks": N_BLOCKS,
    }
    kernel = gated_gemv if one_token else gated_gemm
    run(kernel, gated, GATED, -(-half // 16 // tiles_per_chunk), together)
    np.testing.assert_array_equal(outputs[1], outputs[0])
    np.testing.assert_array_equal(hidden[1], hidden[0])
    assert (outputs[1][:, 2 * half :] == UNTOUCHED).all()
    assert np.isfinite(outputs[1]).all()
    assert (outputs[1][:, :half] != UNTOUCHED).all()


def test_threads_may_have_activations_of_their_own() -> None:
    """The panels of the worker that does a chunk are read, and no others."""
    tiling = Q4_0.gemv_tiling(NATIVE)
    rows = weights_of(Q4_0, 64, 2)
    x = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    of_workers = np.concatenate([panels_of(row[None], tiling.panel, unwritten=0xFF) for row in x])
    output = np.zeros((1, 64), np.float32)
    arguments: dict[str, Any] = {
        "state": step_state(1),
        "weights": pack(Q4_0, rows),
        "n_blocks": 2,
        "n_tiles": 4,
        "ranges": 1,
        "tiles_per_chunk": 1,
        "panels": of_workers,
        "panels_of_worker": of_workers.strides[0],
        "output": output,
        "stride": 256,
        "bias": 0,
        "accumulate": 0,
        "scratch": 0,
        "scratch_bytes": 0,
    }
    run(gemv, tiling, PRODUCT, 4, arguments)  # chunk i by worker i % 2
    mixed = output.copy()
    for worker in range(2):
        run(
            gemv,
            tiling,
            PRODUCT,
            4,
            arguments | {"panels": of_workers[worker:], "panels_of_worker": 0},
        )
        for tile in range(worker, 4, 2):
            part = slice(16 * tile, 16 * tile + 16)
            np.testing.assert_array_equal(mixed[0, part], output[0, part])
