"""``edgeqwen warmup``: compiles the kernels ahead of the first use."""

from pathlib import Path
from typing import Annotated

import typer

from edgeqwen.cli import options


def warmup(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="A GGUF file; without one, the kernels of every weight type."
        ),
    ] = None,
    threads: options.Threads = None,
) -> None:
    """Compile ahead what running a model needs; done once for each CPU and version."""
    from edgeqwen.cli.loading import compile_kernels

    compile_kernels(model, threads=threads)
    print("All kernels are compiled.")
