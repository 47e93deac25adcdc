"""A decode step that computes only those logits which may be among the largest.

``kernels/screen.py`` tells how they are found. The head must lie in memory in a screened format.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.errors import OptionError
from edgeqwen.executor import Tape
from edgeqwen.formats.base import TILE_ROWS
from edgeqwen.formats.screened import ScreenedFormat
from edgeqwen.kernels.coarse import COARSE, KEPT_LINES, LINE, MOST_LINES, coarse
from edgeqwen.kernels.coarse_factors import coarse_factors
from edgeqwen.kernels.screen import (
    MOST_SEEDS,
    MOST_WANTED,
    REQUEST,
    SCREEN,
    choose_seeds,
    choose_survivors,
    compute_seeds,
    compute_survivors,
)
from edgeqwen.model.buffers import Buffers
from edgeqwen.model.chunks import CHUNKS_PER_THREAD, tiles_per_chunk
from edgeqwen.model.qwen2 import Recorder
from edgeqwen.model.recording import Recording, bits
from edgeqwen.model.wanted import Wanted
from edgeqwen.model.weights import Matrix
from edgeqwen.simd.isa import Isa

# Tiles whose scales say in which columns weights are large.
SAMPLED_TILES = 64
# Where a larger part of the tiles is computed after the coarse pass, it takes longer than without.
PAYING_SHARE = 0.3
# Steps without a screen after one that didn't pay, doubled as long as that goes on.
FIRST_PAUSE, LAST_PAUSE = 8, 512


@dataclass(frozen=True, slots=True)
class ScreenMemory:
    """Where the parts of the screen's memory lie, as offsets, and how large all of it is."""

    offsets: dict[str, int]
    n_bytes: int


def screen_memory(head: Matrix) -> ScreenMemory:
    """Plans the memory that the screen of a head needs; none for a head that isn't screened."""
    if not isinstance(head.format, ScreenedFormat):
        return ScreenMemory({}, 0)
    sizes = {
        "factors": 4 + 4 * head.format.factor_floats * head.n_blocks,
        "shares": 4 * head.n_blocks * head.format.lines,
        "lines": 8 + MOST_LINES * LINE.itemsize,
        "kept": 64 * KEPT_LINES * head.n_tiles,
        "kept_lines": 8 + 16 * KEPT_LINES,
        "bounds": 8 * head.n_tiles,
        "chosen": 16 + 8 * head.n_tiles,
        "errors": 8 * MOST_SEEDS,
        "largest": 4 * MOST_WANTED,
    }
    offsets, total = {}, 0
    for name, size in sizes.items():
        offsets[name] = total
        total += -(-size // 64) * 64
    return ScreenMemory(offsets, total)


def screen_sizes(head: Matrix) -> NDArray[np.float32]:
    """Returns zeros for ``mean_square_scales`` to fill in; none for a head that isn't screened."""
    groups = head.format.groups if isinstance(head.format, ScreenedFormat) else 0
    return np.zeros((head.n_blocks, groups), np.float32)


def mean_square_scales(head: Matrix) -> NDArray[np.float32]:
    """Returns the mean square of the scales in each group of columns: float32 [n_blocks, groups].

    Of a screened head; some hundred rows, evenly spread, stand for all.
    """
    format_ = head.format
    assert isinstance(format_, ScreenedFormat)
    memory = (ctypes.c_uint8 * head.n_bytes).from_address(head.address)
    tiles = np.ctypeslib.as_array(memory).reshape(head.n_tiles, head.row_tiles, format_.tile_bytes)
    some = tiles[:: -(-head.n_tiles // SAMPLED_TILES)]
    scales = format_.scales(some.reshape(-1, format_.tile_bytes))
    squares = np.square(scales, dtype=np.float64)
    squares = squares.reshape(len(some), head.n_blocks, format_.groups, TILE_ROWS)
    means: NDArray[np.float32] = squares.mean(axis=(0, 3)).astype(np.float32)
    return means


class Screen:
    """Decides which steps screen their logits, and holds the request that the kernels read."""

    def __init__(self, head: Matrix, *, full_head: bool = False) -> None:
        """``full_head``: screens nothing, even if a packed file's head is laid out for it."""
        self.head = head
        self.memory = ScreenMemory({}, 0) if full_head else screen_memory(head)
        self.request = np.zeros(1, REQUEST)
        self._penalised: NDArray[np.uint8] | None = None
        self._sizes = screen_sizes(head)
        self._is_measured = False
        # Steps that do without after one that didn't pay, and those that are left of them.
        self._pause = self._paused = 0

    @property
    def exists(self) -> bool:
        """Whether the head can be screened at all."""
        return self.memory.n_bytes > 0

    @property
    def sizes(self) -> NDArray[np.float32]:
        """What will be ``mean_square_scales`` of the head, once ``ask`` has been called."""
        return self._sizes

    def takes(self, wanted: Wanted | None) -> bool:
        """Tells whether the next step shall be screened: if few logits are wanted, and it pays."""
        if not self.exists or wanted is None or wanted.k > MOST_WANTED:
            return False
        self._paused = max(self._paused - 1, 0)
        return self._paused == 0

    def ask(self, wanted: Wanted) -> None:
        """Says what the step is to find; the weights must be there by then.

        Raises OptionError for what makes no sense.
        """
        penalised = wanted.penalised
        shape, lowers = (self.head.n_rows,), wanted.repetition >= 1 and wanted.subtracted >= 0
        if penalised.shape != shape or penalised.dtype != np.uint8 or not lowers or wanted.k < 1:
            raise OptionError(
                f"{wanted}: expected k and repetition of at least 1, nothing less than 0 to be "
                f"subtracted, and penalised tokens as uint8 {list(shape)}"
            )
        if not self._is_measured:
            self._sizes[:] = mean_square_scales(self.head)
            self._is_measured = True
        self._penalised = np.ascontiguousarray(penalised)  # as long as the step needs it
        self.request["k"] = wanted.k
        self.request["penalised"] = self._penalised.ctypes.data
        self.request["repetition"] = bits(_at_least(wanted.repetition))
        self.request["subtracted"] = bits(_at_least(wanted.subtracted))

    def learn(self, memory: int) -> None:
        """Looks at how many tiles a step has computed: where it is too many, others do without."""
        n_computed = ctypes.c_int64.from_address(memory + self.memory.offsets["chosen"] + 8).value
        if n_computed <= PAYING_SHARE * self.head.n_tiles:
            self._pause = 0
        else:
            self._pause = min(max(2 * self._pause, FIRST_PAUSE), LAST_PAUSE)
            self._paused = self._pause + 1


def _at_least(x: float) -> float:
    """Returns a float32 that is no less than a float64."""
    return float(np.nextafter(np.float32(x), np.float32(np.inf)))


def add_screen(
    tape: Tape,
    screen: Screen,
    isa: Isa,
    n_threads: int,
    *,
    memory: int,
    panels: int,
    logits: int,
) -> None:
    """Adds the operations that find the largest logits of one token, and compute them.

    ``memory``, ``panels`` and ``logits`` are the addresses of ``screen.memory.n_bytes`` bytes, of
    the activations, and of float32 [16 * n_tiles], where logits that aren't computed become LOWEST.
    """
    head = screen.head
    tiling = head.format.gemv_tiling(isa)
    shared = {
        "weights": head.address,
        "n_blocks": head.n_blocks,
        "n_tiles": head.n_tiles,
        "panels": panels,
        "logits": logits,
        **{name: memory + screen.memory.offsets[name] for name in ("factors", "lines", "bounds")},
    }
    per_chunk = tiles_per_chunk(head, tiling, n_threads)
    arguments = {
        **shared,
        "tiles_per_chunk": per_chunk,
        "sizes": screen.sizes.ctypes.data,
        **{name: memory + screen.memory.offsets[name] for name in ("shares", "kept", "kept_lines")},
    }
    tape.add(coarse_factors, tiling, COARSE, arguments)
    tape.add(coarse, tiling, COARSE, arguments, chunks=-(-head.n_tiles // per_chunk))
    n_chunks = CHUNKS_PER_THREAD * n_threads
    arguments = {
        **shared,
        "request": screen.request.ctypes.data,
        "n_rows": head.n_rows,
        "n_chunks": n_chunks,
        **{name: memory + screen.memory.offsets[name] for name in ("chosen", "errors", "largest")},
    }
    tape.add(choose_seeds, tiling, SCREEN, arguments)
    tape.add(compute_seeds, tiling, SCREEN, arguments, chunks=n_chunks)
    tape.add(choose_survivors, tiling, SCREEN, arguments)
    tape.add(compute_survivors, tiling, SCREEN, arguments, chunks=n_chunks)


class ScreenedRecording(Recording):
    """A tape for one token that computes the logits which the request asks for, and few others."""

    def __init__(self, recorder: Recorder, buffers: Buffers, screen: Screen) -> None:
        super().__init__(recorder, buffers, one_token=True)
        self._screen = screen

    def logits(self, weight: NDArray[Any], head: Matrix, last_only: bool) -> None:
        # All threads read the same panel, in one operation after the other.
        self.shared_norm(weight, head, self.tiling(head.format).panel)
        add_screen(
            self.tape,
            self._screen,
            self.r.isa,
            self.r.n_threads,
            memory=self.buffers["screen"],
            panels=self.buffers["panels"],
            logits=self.buffers["logits"],
        )
