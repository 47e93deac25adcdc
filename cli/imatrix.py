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
    10 windows that is written, too. Files that are combined are compared with MODEL, if one is
    named.
    """
    from edgeqwen.cli.loading import load_model, named_or_built_in
    from edgeqwen.errors import OptionError
    from edgeqwen.gguf_file import GgufFile
    from edgeqwen.quant.imatrix_use import check_imatrix, read_imatrix
    from edgeqwen.quant.output_check import check_outputs

    if file is None and not inputs:
        raise typer.BadParameter("give a text to read (-f TEXT), or files to combine (--in)")
    if file is None:
        _check_no_text_is_meant(context, chunks, process_output, special)
    read = [(path, "one of the files to add (--in)") for path in inputs or ()]
    if file is not None and str(file) != "-":
        read.append((file, "the text"))
    path = None if file is None and model is None else named_or_built_in(model)
    matrices: dict[str, int] = {}
    if path is not None:
        with GgufFile.open(path) as opened:
            config = opened.config()
            read += [(part, "a file of the model") for part in opened.paths]
        shapes = config.expected_tensors()
        matrices = {name: shape[1] for name, shape in shapes.items() if len(shape) == 2}
    check_outputs([output], read)
    earlier = [read_imatrix(path) for path in inputs or ()]
    notes: list[str] = []
    if path is not None:
        notes += [note for found in earlier for note in check_imatrix(found, matrices, path)]
    if path is None or file is None:
        *others, last = earlier
        _write(last.merged(others), output, notes)
        return

    from edgeqwen.cli.interrupts import first_ctrl_c
    from edgeqwen.cli.progress import count_bar
    from edgeqwen.cli.terminal import valid_unicode
    from edgeqwen.cli.text_file import read_text

    text = read_text(file)
    # Not before: it brings Numba, for which a misspelled name shouldn't have to wait.
    from edgeqwen.importance import CONTEXT, collect

    if not text:
        least = context or min(CONTEXT, config.max_context)
        raise OptionError(
            f"{'standard input' if str(file) == '-' else file}: is empty, expected a text of at "
            f"least {least} tokens, a window; give more text"
        )
    stopped = threading.Event()
    began = time.perf_counter()
    with load_model(path, threads=threads, context=None) as loaded:
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


def _check_no_text_is_meant(
    context: int | None, chunks: int | None, process_output: bool, special: bool
) -> None:
    """Refuses options that would have no effect, for no text is read."""
    from edgeqwen.errors import OptionError

    options = {
        "--context": context,
        "--chunks": chunks,
        "--process-output": process_output,
        "--special": special,
    }
    for name, value in options.items():
        if value:
            raise OptionError(
                f"{name}: says how a text is read, and there is none; give one (-f TEXT), or leave "
                f"{name} out"
            )


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
