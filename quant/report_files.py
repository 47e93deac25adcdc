"""write_report(): the errors of a conversion as two files, JSON and HTML, side by side."""

from pathlib import Path

from edgeqwen.errors import OptionError
from edgeqwen.quant.atomic_file import AtomicFile, check_writable
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


def check_report(path: str | Path, source: str | Path, output: str | Path) -> None:
    """Makes sure, before any work, that the report of a conversion can be written.

    Raises OptionError where ``report_paths`` does, where a file can't come to stand, and where one
    would take the place of the output or of a file of the source.
    """
    source, output = Path(source), Path(output)
    for file in report_paths(path):
        check_writable(file)
        if file.resolve() == output.resolve():
            raise OptionError(f"{file}: is the output; choose another name for the report")
        # A link is written through, wherever it lies.
        places = (file.resolve(), file.resolve().parent, file.parent.resolve())
        if file.exists() and source.resolve() in places:
            raise OptionError(f"{file}: is a file of the source; choose another place")


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
