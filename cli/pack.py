"""``edgeqwen pack``: a GGUF file that loads at once."""

from pathlib import Path
from typing import Annotated

import typer

from edgeqwen.cli import options


def pack(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The packed file to write.")],
    threads: options.Threads = None,
) -> None:
    """Pack a GGUF file, so that it loads at once: only edgeqwen can run it then."""
    from edgeqwen.cli.progress import byte_bar
    from edgeqwen.cli.terminal import clean_line, size_text
    from edgeqwen.quant import pack as pack_file

    with byte_bar(f"packing {source.name}") as progress:
        size = pack_file(source, output, n_threads=threads, progress=progress)
    print(f"{clean_line(str(output))}: {size_text(size)}")
