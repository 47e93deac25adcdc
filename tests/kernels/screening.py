"""A screened head with its activations, laid out for the kernels, and what they write."""

from typing import Any

import numpy as np

from edgeqwen.formats.screened import ScreenedFormat
from edgeqwen.kernels.coarse import COARSE, KEPT_LINES, LINE, LINE_BYTES, MOST_LINES, coarse
from edgeqwen.kernels.coarse_factors import coarse_factors
from edgeqwen.kernels.gemv import gemv
from edgeqwen.kernels.products import PRODUCT
from edgeqwen.simd.isa import Isa
from tests.formats.packing import pack, plain_format, weights_of
from tests.isas import address
from tests.kernels.running import run, step_state
from tests.oracles.kernels import panels
from tests.oracles.screen import Weights


class Head:
    """``x``: float32 [n_columns], random unless given. ``rows``: GGUF's bytes, random likewise."""

    def __init__(
        self,
        format_: ScreenedFormat,
        isa: Isa,
        n_rows: int,
        row_tiles: int = 3,
        *,
        x: np.ndarray | None = None,
        rows: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.format, self.tiling = format_, format_.gemv_tiling(isa)
        self.n_rows, self.n_tiles = n_rows, -(-n_rows // 16)
        self.n_blocks = row_tiles * format_.tile_blocks
        self.rows = weights_of(format_, n_rows, row_tiles, seed) if rows is None else rows
        self.x = rng.standard_normal(32 * self.n_blocks).astype(np.float32) if x is None else x
        self.weights = Weights.read(plain_format(format_), self.rows)
        self.tiles = pack(format_, self.rows)
        self.panels = panels(self.x[None], self.tiling.panel)
        # As if of all rows; those past the end are zero.
        squares = (self.weights.scales**2).mean(axis=0)
        self.sizes = np.ascontiguousarray(squares, np.float32)
        self.factors = np.full(1 + format_.factor_floats * self.n_blocks, np.nan, np.float32)
        self.shares = np.full(self.n_blocks * format_.lines, np.nan, np.float32)
        self.lines = np.full(1 + MOST_LINES * LINE_BYTES // 8, -1, np.int64)
        self.kept = np.full((KEPT_LINES, self.n_tiles, 64), 0xEE, np.uint8)
        self.kept_lines = np.zeros(1 + 2 * KEPT_LINES, np.int64)
        self.bounds = np.full((self.n_tiles + 1, 2), np.nan, np.float32)
        self.logits = np.full(16 * self.n_tiles + 16, 777, np.float32)

    def coarse(self, *, tiles_per_chunk: int = 2) -> None:
        """Runs the coarse pass, with all that it needs."""
        arguments = {
            **self.shared(),
            "tiles_per_chunk": tiles_per_chunk,
            "sizes": self.sizes,
            "shares": self.shares,
            "kept": self.kept,
            "kept_lines": self.kept_lines,
        }
        run(coarse_factors, self.tiling, COARSE, 1, arguments)
        run(coarse, self.tiling, COARSE, -(-self.n_tiles // tiles_per_chunk), arguments)

    def shared(self) -> dict[str, Any]:
        """Returns the arguments that all kernels of the screen take."""
        return {
            "weights": self.tiles,
            "n_blocks": self.n_blocks,
            "n_tiles": self.n_tiles,
            "panels": self.panels,
            "factors": self.factors,
            "lines": self.lines,
            "bounds": self.bounds,
            "logits": self.logits,
        }

    def chosen_lines(self) -> list[tuple[int, int]]:
        """Returns the (block, line) that the coarse pass has looked up."""
        panel_bytes = self.tiling.panel.block_bytes
        found = []
        for record in self.lines[1:].view(LINE)[: self.lines[0]]:
            at = int(record["panel"]) - address(self.panels)
            found.append((at // panel_bytes, at % panel_bytes // 4))
        return found

    def full(self) -> np.ndarray:
        """Returns all logits by the full product: float32 [16 * n_tiles]."""
        output = np.full(16 * self.n_tiles, np.nan, np.float32)
        arguments = {
            "state": step_state(1),
            "weights": self.tiles,
            "n_blocks": self.n_blocks,
            "n_tiles": self.n_tiles,
            "ranges": 1,
            "tiles_per_chunk": self.n_tiles,
            "panels": self.panels,
            "panels_of_worker": 0,
            "output": output,
            "stride": 0,
            "bias": 0,
            "accumulate": 0,
            "scratch": 0,
            "scratch_bytes": 0,
        }
        run(gemv, self.tiling, PRODUCT, 1, arguments)
        return output
