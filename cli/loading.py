"""Loading a model for a command, with bars while it takes its time."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeqwen.cli.progress import byte_bar, count_bar

if TYPE_CHECKING:
    from edgeqwen import Model


def load_model(path: Path, *, threads: int | None, context: int | None) -> "Model":
    """Loads a GGUF file; raises what ``edgeqwen.load`` raises."""
    from edgeqwen import load

    # The first use of a model on a CPU compiles for a minute: it shows here, and not as a first
    # answer that doesn't come.
    compile_kernels(path, threads=threads)
    with byte_bar(f"loading {path.name}") as progress:
        return load(path, n_threads=threads, max_context=context, progress=progress)


def compile_kernels(path: Path | None, *, threads: int | None) -> None:
    """Compiles what a model needs, or what every weight type needs, unless it is in the cache."""
    from edgeqwen.engine import warmup

    with count_bar("compiling kernels for this CPU") as progress:
        warmup(path, n_threads=threads, progress=progress)
