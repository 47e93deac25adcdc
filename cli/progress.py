"""Progress bars on standard error; nothing where that is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeqwen.cli.terminal import clean_line

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


# Work that is done sooner shows no bar: its library takes longer to import than a model to load.
_PATIENCE_SECONDS = 0.3


class Bar:
    """A bar that moves when it is called with (done, total), and that may be described anew.

    ``make`` returns what draws it; it is called once there is something to show, unless the work
    has ended by then.
    """

    def __init__(self, make: "Callable[[], Progress | None]", description: str) -> None:
        self._make, self._description = make, clean_line(description)
        self._begin = time.monotonic()
        self._progress: Progress | None = None
        self._is_closed = False

    def __call__(self, done: int, total: int) -> None:
        if self._is_closed:
            return
        if self._progress is None:
            if done >= total or time.monotonic() < self._begin + _PATIENCE_SECONDS:
                return
            self._progress = self._make()
            if self._progress is None:
                self._is_closed = True
                return
            self._progress.start()
            self._task = self._progress.add_task(self._description)
        self._progress.update(self._task, completed=done, total=total)

    def describe(self, description: str) -> None:
        self._description = clean_line(description)
        if self._progress is not None:
            self._progress.update(self._task, description=self._description)

    def close(self) -> None:
        """Takes the bar away, for good."""
        self._is_closed = True
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


@contextmanager
def byte_bar(description: str) -> Iterator[Bar]:
    """Gives a bar of (bytes done, bytes in total) with the speed and the time left."""

    def columns() -> "tuple[ProgressColumn, ...]":
        from rich import progress as rich

        return (
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            rich.DownloadColumn(binary_units=True),
            rich.TransferSpeedColumn(),
            rich.TimeRemainingColumn(),
        )

    with _bar(description, columns) as bar:
        yield bar


@contextmanager
def count_bar(description: str) -> Iterator[Bar]:
    """Gives a bar of (done, total) with the time passed and the time left."""

    def columns() -> "tuple[ProgressColumn, ...]":
        from rich import progress as rich

        return (
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeElapsedColumn(),
            # Two times side by side: the second one says which it is.
            rich.TimeRemainingColumn(),
            rich.TextColumn("left"),
        )

    with _bar(description, columns) as bar:
        yield bar


@contextmanager
def _bar(description: str, columns: "Callable[[], tuple[ProgressColumn, ...]]") -> Iterator[Bar]:
    def make() -> "Progress | None":
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        if not console.is_terminal or console.is_dumb_terminal:
            return None
        return Progress(*columns(), console=console, transient=True)

    bar = Bar(make, description)
    try:
        yield bar
    finally:
        bar.close()
