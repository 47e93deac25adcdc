"""write_report(): the errors of a conversion as two files, JSON and HTML, side by side."""

import contextlib
from pathlib import Path

from edgeqwen.errors import OptionError
from edgeqwen.quant.atomic_file import AtomicFile
from edgeqwen.quant.checkpoint import open_checkpoint
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.output_check import check_outputs, conversion_inputs
from edgeqwen.quant.report import QuantizeReport
from edgeqwen.quant.report_page import page

_SUFFIXES = (".json", ".html")


def report_paths(path: str | Path) -> tuple[Path, Path]:
    """Returns the paths of the JSON file and the HTML page, of which ``path`` names one.

    Raises OptionError if it has another ending.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise OptionError(
            f"{path}: ends in {path.suffix!r}, expected .html or .json: a report is written as "
            "both, side by side"
        )
    return path.with_suffix(".json"), path.with_suffix(".html")


def check_report(
    path: str | Path,
    source: str | Path,
    output: str | Path,
    *,
    imatrix: str | Path | Imatrix | None = None,
) -> None:
    """Makes sure, before any work, that a conversion and its report can be written.

    Raises OptionError where ``report_paths`` does, where a file can't come to stand, and where one
    would take the place of another or of what is read; and what opening the source raises.
    """
    written = (Path(output), *report_paths(path))
    with contextlib.closing(open_checkpoint(Path(source))) as checkpoint:
        check_outputs(written, conversion_inputs(checkpoint.files, imatrix))


def write_report(report: QuantizeReport, path: str | Path) -> tuple[Path, Path]:
    """Writes a report that has its tensors' errors; returns the JSON file and the HTML page.

    ``path`` names one of the two. Each appears, or replaces what stood there, when it is complete.
    Raises OptionError if the errors weren't measured or a file can't be written there,
    EdgeqwenError if writing fails.
    """
    paths = report_paths(path)
    if any(tensor.errors is None for tensor in report.tensors):
        raise OptionError(
            "the report has no errors of tensors; call quantize with measure_errors=True"
        )
    for file, content in zip(paths, (report.to_json(), page(report)), strict=True):
        with AtomicFile(file) as out:
            out.write(content.encode())
    return paths
