"""``edgeqwen imatrix``: an importance matrix, collected from a text or combined from several."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeqwen.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeqwen.quant.imatrix import Imatrix


def imatrix(
    model: options.ModelOrBuiltIn = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "-f", "--file", metavar="TEXT", help="A text in UTF-8; - reads standard input."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write, in GGUF.")
    ] = Path("imatrix.gguf"),
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--in",
            metavar="IMATRIX",
            help="Add what this file holds; may be given several times. Without -f, no model is "
            "run, and the files are only combined.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "-c",
            "--context",
            min=1,
            help="Tokens of a window; by default 512, or the model's context if that is less.",
        ),
    ] = None,
    chunks: Annotated[
        int | None,
        typer.Option("--chunks", min=1, help="Windows to read; by default all of the text."),
    ] = None,
    process_output: Annotated[
        bool, typer.Option("--process-output", help="Collect for output.weight, too.")
    ] = False,
    special: options.Special = False,
    threads: options.Threads = None,
) -> None:
    """Collect from a text how much each column of a model's weights matters, for quantizing it.

    The text is read in windows. Ctrl-C ends it early and keeps what was collected so far; every
    10 windows that is written, too.
    """
    from edgeqwen.quant.atomic_file import check_writable
    from edgeqwen.quant.imatrix import Imatrix

    if file is None and not inputs:
        raise typer.BadParameter("give a text to read (-f TEXT), or files to combine (--in)")
    check_writable(output)
    earlier = [Imatrix.read(path) for path in inputs or ()]
    if file is None:
        *others, last = earlier
        _write(last.merged(others), output)
        return

    from edgeqwen.cli.interrupts import first_ctrl_c
    from edgeqwen.cli.loading import load_model, named_or_built_in
    from edgeqwen.cli.progress import count_bar
    from edgeqwen.cli.terminal import valid_unicode
    from edgeqwen.cli.text_file import read_text

    path = named_or_built_in(model)
    _check_apart(output, (path, file))
    text = read_text(file)
    # Not before: it brings Numba, for which a misspelled name shouldn't have to wait.
    from edgeqwen.importance import collect

    stopped = threading.Event()
    began = time.perf_counter()
    with load_model(path, threads=threads, context=None) as loaded:
        shapes = loaded.config.expected_tensors()
        matrices = {name: shape[1] for name, shape in shapes.items() if len(shape) == 2}
        notes = [note for found in earlier for note in found.check(matrices, str(path))]
        tokens = loaded.tokenizer.encode(text, allow_special=special)
        with first_ctrl_c(stopped.set), count_bar("collecting") as bar:
            found = collect(
                loaded,
                tokens,
                context=context,
                max_windows=chunks,
                output=process_output,
                dataset="" if str(file) == "-" else valid_unicode(str(file)),
                cancelled=stopped.is_set,
                progress=bar,
                so_far=lambda found: found.merged(earlier).write(output),
            )
    _write(found.merged(earlier), output, notes, time.perf_counter() - began)
    if stopped.is_set():
        raise KeyboardInterrupt


def _check_apart(output: Path, read: "Sequence[Path]") -> None:
    """Refuses to write over what is being read."""
    from edgeqwen.errors import OptionError

    for path in read:
        if output.exists() and path.exists() and output.samefile(path):
            raise OptionError(f"{output}: is what the command reads; choose another output")


def _write(
    found: "Imatrix", output: Path, notes: "Sequence[str]" = (), seconds: float | None = None
) -> None:
    """Writes the file and says what it holds."""
    from edgeqwen.cli.terminal import clean_line

    found.write(output)
    for note in notes:
        print(clean_line(note))
    time_taken = "" if seconds is None else f", {seconds:.1f} s"
    print(
        f"{clean_line(str(output))}: {len(found.entries)} matrices, {found.n_tokens} tokens in "
        f"{found.chunk_count} windows of {found.chunk_size}{time_taken}"
    )
