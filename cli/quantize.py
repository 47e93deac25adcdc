"""``edgeqwen quantize``: a checkpoint becomes a GGUF file."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgeqwen.quant import QuantizePlan, QuantizeReport


def _needed(context: typer.Context, output: Path | None) -> Path | None:
    """Asks for the output, unless nothing is to be written."""
    if output is None and not context.params.get("dry_run") and not context.resilient_parsing:
        raise typer.BadParameter("Missing; only --dry-run needs none.")
    return output


def _of_a_text(context: typer.Context, n_tokens: int) -> int:
    """Refuses a number of tokens without the text that they are to be of."""
    origin = context.get_parameter_source("calibrate_tokens")
    given = origin is not None and origin.name == "COMMANDLINE"
    if given and context.params.get("calibrate") is None and not context.resilient_parsing:
        raise typer.BadParameter("There is no text to calibrate with; give one (--calibrate TEXT).")
    return n_tokens


def quantize(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A Hugging Face checkpoint folder, or a GGUF file."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", callback=_needed, help="The GGUF file to write."),
    ] = None,
    type: Annotated[
        str,
        typer.Option(
            "-t",
            "--type",
            help="f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, "
            "q4_0, iq4_nl, iq4_xs, q3_k_l, q3_k_m, q3_k_s or q2_k.",
        ),
    ] = "q4_0",
    imatrix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An importance matrix, by which errors are weighed: edgeqwen imatrix, or "
            "llama.cpp, makes one.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        # Before --calibrate-tokens, which depends on it.
        typer.Option(
            metavar="TEXT",
            is_eager=True,
            help="Round so that errors make up for each other on TEXT, a file in UTF-8, or - for "
            "standard input: the best quality, and slow.",
        ),
    ] = None,
    calibrate_tokens: Annotated[
        int,
        typer.Option(
            min=64,
            callback=_of_a_text,
            help="Tokens of TEXT that are used, spread over all of it.",
        ),
    ] = 32768,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX=TYPE",
            help="Another type for the matrices in whose name this is found, such as "
            "attn_v=q8_0; may be given several times, and the first that is found decides.",
        ),
    ] = None,
    pad_ffn: Annotated[
        bool,
        typer.Option(
            "--pad-ffn",
            help="Fill the feed-forward size up with zeros to a multiple of 256 (72B), so that "
            "every type fits; results stay the same.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        # Before --output, which depends on it.
        typer.Option(
            "--dry-run", is_eager=True, help="Only show the types and sizes that would be written."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write how far every tensor lies from the original, as a page and beside it as "
            "JSON.",
        ),
    ] = None,
    packed: Annotated[
        bool,
        typer.Option(
            "--packed", help="Pack the result, as `edgeqwen pack` does: it loads at once."
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads; by default one for each core.")
    ] = None,
) -> None:
    """Convert a checkpoint to GGUF, in fewer bits if you like.

    The file appears under its name when it is complete; until then nothing there is touched.
    """
    from edgeqwen.cli.progress import byte_bar
    from edgeqwen.cli.terminal import clean, clean_line, size_text
    from edgeqwen.errors import OptionError
    from edgeqwen.quant import plan, write_report
    from edgeqwen.quant import quantize as convert

    tensor_types = _tensor_types(tensor_type or [])
    if dry_run and report is not None:
        raise OptionError("--report tells of what was written; leave --dry-run out")
    text, warned = None, set[str]()
    # Of anything else, the conversion itself makes sure.
    if dry_run or calibrate is not None or report is not None:
        text, warned = _look_ahead(source, output, report, imatrix, calibrate, calibrate_tokens)
    if dry_run or output is None:
        found = plan(source, type, imatrix=imatrix, tensor_types=tensor_types, pad_ffn=pad_ffn)
        print(clean(_as_text(found)))
        return
    with byte_bar(f"{source.name or source} to {type}") as progress:
        done = convert(
            source,
            output,
            type,
            imatrix=imatrix,
            calibrate=text,
            calibrate_tokens=calibrate_tokens,
            tensor_types=tensor_types,
            pad_ffn=pad_ffn,
            measure_errors=report is not None,
            packed=packed,
            n_threads=threads,
            progress=progress,
        )
    for note in done.notes:
        if note not in warned:
            print(clean_line(note))
    print(
        f"{clean_line(str(output))}: {done.n_weights:,} weights in {size_text(done.n_bytes)}, "
        f"{done.bits_per_weight:.2f} bits per weight, {done.seconds:.1f} s"
    )
    if report is not None:
        written = " and ".join(map(str, write_report(done, report)))
        print(f"largest errors, RMSE / RMS: {clean_line(_largest_errors(done))}")
        print(clean_line(written))


def _look_ahead(
    source: Path,
    output: Path | None,
    report: Path | None,
    imatrix: Path | None,
    calibrate: Path | None,
    n_tokens: int,
) -> tuple[str | None, set[str]]:
    """Looks at all files before any work; returns the text to calibrate with, and the warnings.

    Warnings are printed on standard error: who reads them may still stop what takes hours.
    """
    from edgeqwen.cli.terminal import clean_line
    from edgeqwen.cli.text_file import read_text
    from edgeqwen.quant.calibration_text import calibration_windows, cautions
    from edgeqwen.quant.checkpoint import open_checkpoint
    from edgeqwen.quant.output_check import check_outputs, conversion_inputs
    from edgeqwen.quant.report_files import report_paths

    written = [] if output is None else [output]
    if report is not None:
        written += report_paths(report)
    with contextlib.closing(open_checkpoint(source)) as checkpoint:
        check_outputs(written, conversion_inputs(checkpoint.files, imatrix, calibrate))
        if calibrate is None:
            return None, set()
        text = read_text(calibrate)
        found = cautions(calibration_windows(text, checkpoint, n_tokens))
    for warning in found:
        print(clean_line(f"edgeqwen: warning: {warning}"), file=sys.stderr, flush=True)
    return text, {*found}


def _largest_errors(report: "QuantizeReport", n: int = 3) -> str:
    """Returns the tensors with the largest relative errors, for people."""
    measured = [(t.errors.relative_rmse, t) for t in report.tensors if t.errors is not None]
    largest = sorted(measured, key=lambda pair: -pair[0])[:n]
    shown = [f"{t.name} {100 * error:.3g}% ({t.type.name})" for error, t in largest if error]
    return ", ".join(shown) or "none, every tensor is exact"


def _tensor_types(options: list[str]) -> dict[str, str]:
    """Returns the types by expression, in the order given."""
    from edgeqwen.errors import OptionError

    found: dict[str, str] = {}
    for option in options:
        # An expression may hold "=", a type doesn't.
        pattern, _, type = option.rpartition("=")
        if not pattern or not type:
            raise OptionError(
                f"--tensor-type {option!r}: expected a part of a name, =, and a type, such as "
                "attn_v=q8_0"
            )
        if pattern in found:
            raise OptionError(f"--tensor-type: {pattern!r} is given twice; give it once")
        found[pattern] = type
    return found


def _as_text(plan: "QuantizePlan") -> str:
    """Returns a plan as aligned lines: layers treated alike share one, then the sums."""
    from edgeqwen.cli.terminal import clean_line, size_text
    from edgeqwen.quant import group_layers

    tensors = [
        (
            group.name,
            " x ".join(map(str, group.shape)),
            f"{group.source_type.name} -> {group.type.name}",
            f"{group.n_tensors} x {size_text(group.n_bytes // group.n_tensors)}",
        )
        for group in group_layers(plan.tensors)
    ]
    types = [
        (
            total.type.name,
            f"{total.n_tensors} tensors",
            f"{total.n_weights:,} weights",
            size_text(total.n_bytes),
        )
        for total in plan.by_type
    ]
    lines = [clean_line(note) for note in plan.notes]
    lines += ["Tensors (rows x columns)", *_table(tensors), "", "Types", *_table(types), ""]
    lines.append(
        f"{clean_line(str(plan.source))} to {plan.type}: {plan.n_weights:,} weights in "
        f"{size_text(plan.n_bytes)}, {plan.bits_per_weight:.2f} bits per weight; "
        "nothing was written"
    )
    return "\n".join(lines)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
