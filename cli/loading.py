"""Loading a model for a command, with a bar while it takes its time."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeqwen.cli.progress import byte_bar

if TYPE_CHECKING:
    from edgeqwen import Model


def load_model(path: Path, *, threads: int | None, context: int | None) -> "Model":
    """Loads a GGUF file; raises what ``edgeqwen.load`` raises."""
    from edgeqwen import load

    with byte_bar(f"loading {path.name}") as progress:
        return load(path, n_threads=threads, max_context=context, progress=progress)
