"""``edgeqwen quantize``: a checkpoint becomes a GGUF file."""

from pathlib import Path
from typing import Annotated

import typer


def quantize(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A Hugging Face checkpoint folder, or a GGUF file."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The GGUF file to write.")],
    type: Annotated[
        str, typer.Option("-t", "--type", help="f32, f16, bf16, q8_0 or q4_0.")
    ] = "q4_0",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads; by default one for each core.")
    ] = None,
) -> None:
    """Convert a checkpoint to GGUF, in fewer bits if you like.

    The file appears under its name when it is complete; until then nothing there is touched.
    """
    from edgeqwen.cli.progress import byte_bar
    from edgeqwen.cli.terminal import clean_line, size_text
    from edgeqwen.quant import quantize as convert

    with byte_bar(f"{source.name or source} to {type}") as progress:
        report = convert(source, output, type, n_threads=threads, progress=progress)
    for note in report.notes:
        print(clean_line(note))
    print(
        f"{clean_line(str(output))}: {report.n_weights:,} weights in {size_text(report.n_bytes)}, "
        f"{report.bits_per_weight:.2f} bits per weight, {report.seconds:.1f} s"
    )
