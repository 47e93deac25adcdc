"""Progress bars on standard error; nothing where that is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


@contextmanager
def byte_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (bytes done, bytes in total) that moves a bar with the time left."""
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
    with _bar(description, columns) as move:
        yield move


@contextmanager
def count_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, total) that moves a bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with _bar(description, columns) as move:
        yield move


@contextmanager
def _bar(
    description: str, columns: "tuple[ProgressColumn, ...]"
) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    from edgeqwen.cli.terminal import clean_line

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda done, total: None
        return
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(clean_line(description), total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)
