"""Progress bars on standard error; nothing where that is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeqwen.cli.terminal import clean_line

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


class Bar:
    """A bar that moves when it is called with (done, total), and that may be described anew."""

    def __init__(self, progress: "Progress | None", description: str) -> None:
        self._progress = progress
        if progress is not None:
            self._task = progress.add_task(clean_line(description), total=None, visible=False)

    def __call__(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, visible=True)

    def describe(self, description: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description=clean_line(description))


@contextmanager
def byte_bar(description: str) -> Iterator[Bar]:
    """Gives a bar of (bytes done, bytes in total) with the speed and the time left."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with _bar(description, columns) as bar:
        yield bar


@contextmanager
def count_bar(description: str) -> Iterator[Bar]:
    """Gives a bar of (done, total) with the time passed and the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        # Two times side by side: the second one says which it is.
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with _bar(description, columns) as bar:
        yield bar


@contextmanager
def _bar(description: str, columns: "tuple[ProgressColumn, ...]") -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Bar(None, description)
        return
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, description)
