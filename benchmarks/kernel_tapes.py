"""Tapes of matrix products alone, recorded as the engine records them, over weights of any size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.region import Region
from edgeqwen.executor import Tape, Team
from edgeqwen.formats import Format
from edgeqwen.formats.base import BLOCK_COLUMNS, TILE_ROWS, Tiling
from edgeqwen.kernels.gemm import gemm, scratch_bytes
from edgeqwen.kernels.gemv import gemv
from edgeqwen.kernels.panels import PANELIZE, panelize
from edgeqwen.kernels.plain_read import PLAIN_READ, plain_read
from edgeqwen.kernels.products import PRODUCT
from edgeqwen.kernels.state import STATE
from edgeqwen.model.chunks import tiles_per_chunk
from edgeqwen.model.weights import Matrix
from edgeqwen.simd.isa import Isa, current_isa
from tests.formats.packing import pack, weights_of

FFN: tuple[tuple[int, int], ...] = ((2 * 8960, 1536), (1536, 8960))
"""Rows and columns of the feed-forward matrices of Qwen2.5-1.5B: gate and up together, and down."""


def matrices(format_: Format, shapes: Sequence[tuple[int, int]], at_least: int) -> list[Matrix]:
    """Returns matrices of these shapes, again and again, that take ``at_least`` so many bytes.

    Their addresses count from 0, without gaps.
    """
    found: list[Matrix] = []
    address = 0
    while address < at_least or len(found) % len(shapes):
        n_rows, n_columns = shapes[len(found) % len(shapes)]
        found.append(Matrix((), format_, n_rows, n_columns, 0, address))
        address += found[-1].n_bytes
    return found


def fill(memory: NDArray[np.uint8], planned: Sequence[Matrix]) -> None:
    """Puts random weights where matrices of one format lie in ``memory``, uint8 [bytes].

    The same 16 rows come again and again: no kernel looks at the values.
    """
    tiles: dict[int, NDArray[np.uint8]] = {}
    for matrix in planned:
        row_tiles = matrix.row_tiles
        if row_tiles not in tiles:
            rows = weights_of(matrix.format, TILE_ROWS, row_tiles)
            tiles[row_tiles] = pack(matrix.format, rows).reshape(-1)
        place = memory[matrix.address : matrix.address + matrix.n_bytes]
        place.reshape(matrix.n_tiles, -1)[:] = tiles[row_tiles]


def aligned(n_bytes: int, *, huge: bool = False) -> NDArray[np.uint8]:
    """Returns zeroed memory that begins with a page, as the engine's does."""
    return Region(n_bytes, purpose="the benchmark", huge=huge).view(0, n_bytes)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished tape with the memory that it points to, for ``n_tokens`` tokens.

    It must live until the team is closed that ran it: a thread that was late still looks at it.
    """

    tape: Tape
    n_tokens: int
    kept: tuple[object, ...]

    def run(self, team: Team) -> None:
        team.run(self.tape, self.n_tokens, 1)


def record_products(
    planned: Sequence[Matrix], memory: int, n_tokens: int, team: Team, isa: Isa | None = None
) -> tuple[Recorded, list[NDArray[np.float32]]]:
    """Records one product for each matrix at the address ``memory``: GEMV for one token, else GEMM.

    Random activations are laid out as panels, once, by the team. Returns with the tape the outputs,
    float32 [n_tokens, rows], one for each shape of matrix: those of one shape share it.
    """
    isa = isa or current_isa()
    format_ = planned[0].format
    tiling = format_.gemv_tiling(isa) if n_tokens == 1 else format_.gemm_tiling(isa)
    state = np.zeros(1, STATE)
    state["n_tokens"] = n_tokens
    panels, preparation = _panels(planned, tiling, n_tokens)
    preparation.run(team)
    outputs = {
        matrix.n_rows: aligned(4 * n_tokens * matrix.n_tiles * TILE_ROWS)
        for matrix in {matrix.n_rows: matrix for matrix in planned}.values()
    }
    per_chunk = [tiles_per_chunk(matrix, tiling, team.n_threads) for matrix in planned]
    needed = max(
        scratch_bytes(tiling, matrix.n_blocks, tiles, n_tokens)
        for matrix, tiles in zip(planned, per_chunk, strict=True)
    )
    needed = -(-needed // 4096) * 4096
    scratch = aligned(needed * team.n_threads)
    tape = Tape()
    for matrix, tiles in zip(planned, per_chunk, strict=True):
        arguments = {
            "state": state.ctypes.data,
            "weights": memory + matrix.address,
            "n_blocks": matrix.n_blocks,
            "n_tiles": matrix.n_tiles,
            "ranges": 1,
            "tiles_per_chunk": tiles,
            "panels": panels[matrix.n_columns].ctypes.data,
            "panels_of_worker": 0,
            "output": outputs[matrix.n_rows].ctypes.data,
            "stride": 4 * matrix.n_tiles * TILE_ROWS,
            "bias": 0,
            "accumulate": 0,
            "scratch": scratch.ctypes.data,
            "scratch_bytes": needed,
        }
        kernel = gemv if n_tokens == 1 else gemm
        tape.add(kernel, tiling, PRODUCT, arguments, chunks=-(-matrix.n_tiles // tiles))
    tape.finish()
    kept = (state, panels, preparation, outputs, scratch)
    results = [output.view(np.float32).reshape(n_tokens, -1) for output in outputs.values()]
    return Recorded(tape, n_tokens, kept), results


def record_read(
    planned: Sequence[Matrix], memory: int, team: Team, isa: Isa | None = None
) -> tuple[Recorded, NDArray[np.int32]]:
    """Records a plain read of the same bytes as GEMV's, in the same chunks.

    Returns with the tape the sums, int32 [chunks of all matrices, lanes].
    """
    isa = isa or current_isa()
    tiling = planned[0].format.gemv_tiling(isa)
    per_chunk = [tiles_per_chunk(matrix, tiling, team.n_threads) for matrix in planned]
    chunks = [-(-matrix.n_tiles // tiles) for matrix, tiles in zip(planned, per_chunk, strict=True)]
    sums = np.zeros((sum(chunks), isa.lanes), np.int32)
    tape, first = Tape(), 0
    for matrix, tiles, n_chunks in zip(planned, per_chunk, chunks, strict=True):
        arguments = {
            "memory": memory + matrix.address,
            "n_bytes": matrix.n_bytes,
            "chunk_bytes": tiles * matrix.row_tiles * matrix.format.tile_bytes,
            "sums": sums[first:].ctypes.data,
        }
        tape.add(plain_read, isa, PLAIN_READ, arguments, chunks=n_chunks)
        first += n_chunks
    tape.finish()
    return Recorded(tape, 1, (sums,)), sums


def _panels(
    planned: Sequence[Matrix], tiling: Tiling, n_tokens: int
) -> tuple[dict[int, NDArray[np.uint8]], Recorded]:
    """Returns memory for panels by their columns, and the tape that fills it."""
    state = np.zeros(1, STATE)
    state["n_tokens"] = n_tokens
    rooms: dict[int, NDArray[np.uint8]] = {}
    inputs = []
    tape = Tape()
    for n_columns in dict.fromkeys(matrix.n_columns for matrix in planned):
        n_blocks = n_columns // BLOCK_COLUMNS
        x = np.random.default_rng(n_columns).standard_normal((n_tokens, n_columns), np.float32)
        inputs.append(x)
        panel = tiling.panel
        n_panels = -(-n_tokens // panel.n_tokens)
        rooms[n_columns] = aligned(n_panels * n_blocks * panel.block_bytes)
        arguments = {
            "state": state.ctypes.data,
            "x": x.ctypes.data,
            "n_blocks": n_blocks,
            "panels": rooms[n_columns].ctypes.data,
        }
        tape.add(panelize, panel, PANELIZE, arguments, chunks=n_panels)
    tape.finish()
    return rooms, Recorded(tape, n_tokens, (state, inputs))
