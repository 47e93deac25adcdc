"""Packing a model's weights on a team of threads, in the background, beside other preparations."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen.errors import ClosedError
from edgeqwen.executor import Tape, Team
from edgeqwen.formats import Format
from edgeqwen.formats.packing import (
    JOB,
    PACK,
    pack_jobs,
    pack_tiles,
    releasable_page_bytes,
    with_releases,
)

Progress = Callable[[int, int], None]
# How often a progress is told of.
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor to pack: ``data`` is uint8, ``n_rows`` rows of blocks, ``tiles`` an address."""

    format: Format
    data: NDArray[np.uint8]
    n_rows: int
    tiles: int


class Packing:
    """Packs tensors; ``start`` has a team do it while the caller goes on with something else.

    It takes one step of the team, which nobody else may use until ``wait`` has returned. It must
    live until the team is closed: a thread that is late still looks at its tape.
    """

    def __init__(self, matrices: Iterable[Sequence[Source]], team: Team) -> None:
        """Compiles (or loads) what is missing."""
        self._team = team
        sources = [source for matrix in matrices for source in matrix]
        self._n_bytes = sum(source.data.nbytes for source in sources)
        self._flags = np.zeros(2, np.int64)  # source bytes packed; whether to stop
        self._tape = Tape()
        # What is read and written, which must not go before all is packed.
        self._alive: list[object] = [sources]
        for format_ in dict.fromkeys(source.format for source in sources):
            # As plain integers: numpy takes its time over records.
            parts = [
                pack_jobs(format_, source.data, source.n_rows, source.tiles).view(np.int64)
                for source in sources
                if source.format is format_
            ]
            jobs = with_releases(format_, np.concatenate(parts).view(JOB))
            table = format_.table()
            arguments = {
                "jobs": jobs.ctypes.data,
                "table": 0 if table is None else table.ctypes.data,
                "done": self._flags.ctypes.data,
                "stop": self._flags[1:].ctypes.data,
                "page_bytes": releasable_page_bytes(),
            }
            self._alive += [jobs, table]
            self._tape.add(pack_tiles, format_, PACK, arguments, chunks=len(jobs))
        self._tape.finish()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def keep_alive(self, thing: object) -> None:
        """Holds something until packing has ended."""
        self._alive.append(thing)

    def start(self) -> None:
        """Begins, and returns at once."""
        self._thread = threading.Thread(target=self._run, name="edgeqwen-pack", daemon=True)
        self._thread.start()

    def wait(self, progress: Progress | None = None) -> None:
        """Returns when all is packed; ``progress(done, total)`` counts bytes of the file.

        Raises ClosedError if it was stopped.
        """
        thread = self._thread
        if thread is None:
            raise AssertionError("packing was never started")
        while progress is not None and thread.is_alive():
            progress(int(self._flags[0]), self._n_bytes)
            thread.join(_LOOK_SECONDS)
        thread.join()
        if self._error is not None:
            raise self._error
        if self._flags[1]:
            raise ClosedError("the model was closed while it was loaded")
        if progress is not None:
            progress(int(self._flags[0]), self._n_bytes)
        self._alive.clear()

    def stop(self) -> None:
        """Ends it as soon as the threads are done with what they have in hand."""
        self._flags[1] = 1
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._team.run(self._tape, 1, 1)
        except BaseException as error:
            self._error = error
