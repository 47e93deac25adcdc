"""GEMV and GEMM against the twin: every format, bias, residual, and odd numbers of everything."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgeqwen.formats import (
    BF16,
    F16,
    F32,
    FORMATS,
    IQ4_XS,
    Q2_K,
    Q4_0,
    Q4_K,
    Q6_K,
    Q8_0,
    Format,
    Tiling,
)
from edgeqwen.formats.integer import IntegerFormat
from edgeqwen.kernels.gemm import gemm, longest_stretch, scratch_bytes
from edgeqwen.kernels.gemv import gemv
from edgeqwen.kernels.products import PRODUCT
from edgeqwen.simd.isa import GENERIC, Isa
from tests.formats.packing import dequantized, pack, weights_of
from tests.isas import GENERIC_8, GENERIC_16, NATIVE, TEST_ISAS
from tests.kernels.running import run, step_state
from tests.oracles.blocks import round_int8
from tests.oracles.kernels import panels, product
from tests.random_blocks import FACTORS

# Those whose kernels are like another's but for the numbers in a table.
ALIKE = ("IQ2_XS", "IQ2_S", "IQ1_M", "TQ1_0")
# What plain code differs in: how panels are read, and how scales, halves and minima are applied.
# How it unpacks every format is tested with the tiles.
PLAIN = {
    GENERIC: (Q4_0, Q8_0, F32),
    GENERIC_8: (Q4_K, Q6_K, BF16),
    GENERIC_16: (Q2_K, IQ4_XS, F16),
}


def formats_of(isa: Isa) -> tuple[Format, ...]:
    """All on the CPU's own instruction set, some on plain code."""
    every = tuple(f for f in FORMATS.values() if f.name not in ALIKE)
    return every if isa is NATIVE else PLAIN[isa]


TILINGS = [
    tiling
    for isa in TEST_ISAS
    for f in formats_of(isa)
    for tiling in (f.gemv_tiling(isa), f.gemm_tiling(isa))
]


def _gemm_kind(tiling: Tiling) -> object:
    """What GEMM's micro-kernel depends on, once weights are unpacked, and how tiles lie."""
    format_ = tiling.format
    if not isinstance(format_, IntegerFormat):
        return format_
    unpacked = dataclasses.replace(format_._unpacked(tiling.isa), limit=0)
    return tiling.isa, unpacked, format_.tile_blocks > 1


def _marked(tilings: list[Tiling]) -> list[Any]:
    """Marks as thorough the GEMM of a format that is multiplied as another's is."""
    known: set[object] = set()
    found = []
    for tiling in tilings:
        kind = _gemm_kind(tiling)
        repeats = tiling.n_tokens > 1 and kind in known
        if tiling.n_tokens > 1:
            known.add(kind)
        found.append(pytest.param(tiling, marks=[pytest.mark.thorough] if repeats else []))
    return found


UNTOUCHED = 777.0


def name(tiling: Tiling) -> str:
    kind = "gemv" if tiling.n_tokens == 1 else "gemm"
    return f"{tiling.isa.name}-{tiling.format.name}-{kind}"


each_tiling = pytest.mark.parametrize("tiling", _marked(TILINGS), ids=name)


@dataclass(frozen=True)
class Case:
    """A product's sizes; tokens and blocks are counted in panels and stretches, plus some."""

    n_rows: int
    panels: int = 0
    tokens: int = 0
    stretches: int = 0
    blocks: int = 0
    tiles_per_chunk: int = 1
    bias: bool = False
    residual: bool = False

    def n_tokens(self, tiling: Tiling) -> int:
        if tiling.n_tokens == 1:
            return 1
        return max(1, self.panels * tiling.n_tokens + self.tokens)

    def n_blocks(self, tiling: Tiling) -> int:
        stretch = longest_stretch(tiling) if tiling.n_tokens > 1 else 8
        tile = tiling.format.tile_blocks
        return self.stretches * -(-stretch // tile) * tile + self.blocks * tile


CASES = [
    Case(40, panels=2, tokens=1, blocks=3, tiles_per_chunk=2, bias=True),
    Case(16, panels=1, tokens=-1, stretches=1, blocks=2, residual=True),
    Case(33, tokens=1, stretches=2, tiles_per_chunk=8),
    Case(1, panels=1, blocks=1, bias=True, residual=True),
    Case(40, panels=1, tokens=3, stretches=1, blocks=1, tiles_per_chunk=2),
    Case(48, panels=2, tokens=1, stretches=1, blocks=1, tiles_per_chunk=3, bias=True),
]


class Product:
    """One product: its inputs, what the kernel gives, and what the twin expects."""

    def __init__(self, tiling: Tiling, case: Case, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.tiling, self.case, format_ = tiling, case, tiling.format
        self.n_tokens, self.n_blocks = case.n_tokens(tiling), case.n_blocks(tiling)
        n_rows, n_columns = case.n_rows, 32 * self.n_blocks
        self.rows = weights_of(format_, n_rows, self.n_blocks // format_.tile_blocks, seed)
        self.x = rng.standard_normal((self.n_tokens, n_columns)).astype(np.float32)
        self.x[:, 5] *= 50  # an outlier channel, as real models have
        self.n_tiles = -(-n_rows // 16)
        width = 16 * self.n_tiles
        self.bias = rng.standard_normal(width).astype(np.float32) if case.bias else None
        # Wider than the product, and longer: what lies beyond must stay as it is.
        self.output = np.full((self.n_tokens + 2, width + 8), UNTOUCHED, np.float32)
        self.residual = None
        if case.residual:
            self.residual = rng.standard_normal((self.n_tokens, width)).astype(np.float32)
            self.output[: self.n_tokens, :width] = self.residual

    def panels(self) -> np.ndarray:
        # NaN in the places of tokens past the end, which must not spread.
        return panels(self.x, self.tiling.panel, unwritten=0xFF)

    def run(self, activations: np.ndarray | None = None) -> np.ndarray:
        """Returns float32 [n_tokens, n_rows], after checking what must not have changed."""
        tiling, case = self.tiling, self.case
        worker_bytes = scratch_bytes(tiling, self.n_blocks, case.tiles_per_chunk, self.n_tokens)
        arguments: dict[str, Any] = {
            "state": step_state(self.n_tokens),
            "weights": pack(tiling.format, self.rows),
            "n_blocks": self.n_blocks,
            "n_tiles": self.n_tiles,
            "ranges": 1,
            "tiles_per_chunk": case.tiles_per_chunk,
            "panels": self.panels() if activations is None else activations,
            "panels_of_worker": 0,
            "output": self.output,
            "stride": self.output.strides[0],
            "bias": 0 if self.bias is None else self.bias,
            "accumulate": int(case.residual),
            "scratch": np.full(2 * worker_bytes, 0xFF, np.uint8),
            "scratch_bytes": worker_bytes,
        }
        kernel = gemv if tiling.n_tokens == 1 else gemm
        run(kernel, tiling, PRODUCT, -(-self.n_tiles // case.tiles_per_chunk), arguments)
        assert (self.output[self.n_tokens :] == UNTOUCHED).all()
        assert (self.output[:, 16 * self.n_tiles :] == UNTOUCHED).all()
        return self.output[: self.n_tokens, : case.n_rows]

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        n = self.case.n_rows
        x = round_int8(self.x) if self.tiling.format.integer_activations else self.x
        return product(
            dequantized(self.tiling.format, self.rows),
            x,
            bias=None if self.bias is None else self.bias[:n],
            added_to=None if self.residual is None else self.residual[:, :n],
        )


@each_tiling
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.n_rows} rows")
def test_product(tiling: Tiling, case: Case) -> None:
    run = Product(tiling, case)
    expected, bound = run.expected()
    error = np.abs(run.run() - expected)
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("tiling", _marked([t for t in TILINGS if t.n_tokens > 1]), ids=name)
def test_gemm_and_gemv_agree_to_the_last_bit(tiling: Tiling) -> None:
    """Both form each sum in the same order: how a prompt is cut into steps changes nothing."""
    format_, isa = tiling.format, tiling.isa
    many = Product(format_.gemm_tiling(isa), Case(24, panels=1, tokens=2, stretches=1, blocks=1))
    together = many.run()
    for token in (0, many.n_tokens - 1):
        one = Product(
            format_.gemv_tiling(isa), Case(24, blocks=many.n_blocks // format_.tile_blocks)
        )
        one.rows, one.x = many.rows, many.x[token : token + 1]
        np.testing.assert_array_equal(one.run()[0], together[token])


@each_tiling
def test_a_bad_activation_reaches_its_token_and_no_other(tiling: Tiling) -> None:
    run = Product(tiling, Case(40, panels=1, tokens=1, blocks=2))
    activations = run.panels()
    width = tiling.n_tokens
    # The first token's scale, or its first value, in the second block.
    place = 32 * width if tiling.format.integer_activations else 0
    activations[0, 1, place : place + 4].view(np.float32)[:] = np.nan
    nan = np.isnan(run.run(activations))
    assert nan[0].all()
    assert not nan[1:].any()


@pytest.mark.parametrize("tiling", _marked([t for t in TILINGS if t.isa is NATIVE]), ids=name)
def test_a_bad_weight_reaches_its_row_and_no_other(tiling: Tiling) -> None:
    run = Product(tiling, Case(40, panels=1, tokens=1, blocks=2))
    format_ = tiling.format
    last_block = run.rows[17, -format_.tile_row_bytes :]
    for at in FACTORS.get(format_.name) or (-8, -6, -4, -2):
        last_block[at:][:2] = 0xFF
    if not format_.integer_activations:
        last_block[:4] = 0xFF
    nan = np.isnan(run.run())
    assert nan[:, 17].all()
    assert not np.delete(nan, 17, axis=1).any()


@pytest.mark.parametrize(
    "tiling", _marked([t for t in TILINGS if t.format.name in FACTORS]), ids=name
)
def test_integer_sums_are_exact_at_the_extremes(tiling: Tiling) -> None:
    """All weights and activations at their limits: where int16 sums would overflow first."""
    for weight_byte in (0x80, 0x7F, 0x00, 0xFF, 0x0F):
        run = Product(tiling, Case(16, panels=1, blocks=1))
        run.rows[:] = weight_byte
        blocks = run.rows.reshape(16, -1, tiling.format.tile_row_bytes)
        for at in FACTORS[tiling.format.name]:
            blocks[:, :, at : at + 2] = np.array([1.0], np.float16).view(np.uint8)
        if np.isnan(run.expected()[0]).any():  # IQ1_M's factor is made of the same bytes
            continue
        for signs in (np.ones(32), -np.ones(32), np.resize([1, 1, -1, -1], 32)):
            run.x[:] = np.resize(127 * signs, run.x.shape)
            exact, bound = run.expected()
            if tiling.format.tile_blocks == 1:
                bound = np.zeros_like(bound)
            assert (np.abs(run.run() - exact) <= bound).all()
