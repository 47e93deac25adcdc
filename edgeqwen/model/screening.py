"""A decode step that computes only those logits which may be among the largest.

``kernels/screen.py`` tells how they are found. The head must lie in memory in a screened format.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.errors import OptionError
from edgeqwen.formats.screened import ScreenedFormat
from edgeqwen.kernels.coarse import COARSE, coarse, coarse_factors
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
from edgeqwen.model.qwen2 import CHUNKS_PER_THREAD, Recorder, Recording, bits, tiles_per_chunk
from edgeqwen.model.wanted import Wanted
from edgeqwen.model.weights import Matrix


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


class Screen:
    """Whether and how the logits of a step are screened: the request that its kernels read."""

    def __init__(self, head: Matrix) -> None:
        self.head = head
        self.memory = screen_memory(head)
        self.request = np.zeros(1, REQUEST)
        self._penalised: NDArray[np.uint8] | None = None

    def takes(self, wanted: Wanted | None) -> bool:
        """Tells whether a step can do with the screen: not for all logits, and not for many."""
        return wanted is not None and self.memory.n_bytes > 0 and wanted.k <= MOST_WANTED

    def ask(self, wanted: Wanted) -> None:
        """Says what the next step is to find. Raises OptionError for what makes no sense."""
        penalised = wanted.penalised
        shape, lowers = (self.head.n_rows,), wanted.repetition >= 1 and wanted.subtracted >= 0
        if penalised.shape != shape or penalised.dtype != np.uint8 or not lowers or wanted.k < 1:
            raise OptionError(
                f"{wanted}: expected k and repetition of at least 1, nothing less than 0 to be "
                f"subtracted, and penalised tokens as uint8 {list(shape)}"
            )
        self._penalised = np.ascontiguousarray(penalised)  # as long as the step needs it
        self.request["k"] = wanted.k
        self.request["penalised"] = self._penalised.ctypes.data
        self.request["repetition"] = bits(_at_least(wanted.repetition))
        self.request["subtracted"] = bits(_at_least(wanted.subtracted))


def _at_least(x: float) -> np.float32:
    """Returns a float32 that is no less than a float64."""
    return np.nextafter(np.float32(x), np.float32(np.inf))


class ScreenedRecording(Recording):
    """A tape for one token that computes the logits which the request asks for, and few others."""

    def __init__(self, recorder: Recorder, buffers: Buffers, screen: Screen) -> None:
        super().__init__(recorder, buffers, one_token=True)
        self._screen = screen

    def logits(self, weight: NDArray[Any], head: Matrix, last_only: bool) -> None:
        tiling = self.tiling(head.format)
        self.norm(weight, head, tiling.panel, last_only)
        memory = self._screen.memory.offsets
        place = {name: self.buffers["screen"] + offset for name, offset in memory.items()}
        shared = {
            "weights": head.address,
            "n_blocks": head.n_blocks,
            "n_tiles": head.n_tiles,
            "panels": self.buffers["panels"],
            "factors": place["factors"],
            "bounds": place["bounds"],
            "logits": self.buffers["logits"],
        }
        per_chunk = tiles_per_chunk(head, tiling, self.r.n_threads)
        arguments = {**shared, "tiles_per_chunk": per_chunk}
        n_chunks = -(-head.n_tiles // per_chunk)
        self.tape.add(coarse_factors, tiling, COARSE, arguments)
        self.tape.add(coarse, tiling, COARSE, arguments, chunks=n_chunks)
        n_chunks = CHUNKS_PER_THREAD * self.r.n_threads
        arguments = {
            **shared,
            "request": self._screen.request.ctypes.data,
            "n_rows": head.n_rows,
            "chosen": place["chosen"],
            "errors": place["errors"],
            "largest": place["largest"],
            "n_chunks": n_chunks,
        }
        self.tape.add(choose_seeds, tiling, SCREEN, arguments)
        self.tape.add(compute_seeds, tiling, SCREEN, arguments, chunks=n_chunks)
        self.tape.add(choose_survivors, tiling, SCREEN, arguments)
        self.tape.add(compute_survivors, tiling, SCREEN, arguments, chunks=n_chunks)
