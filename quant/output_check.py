"""What is written stands apart from what is read: looked at before any work is done."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgeqwen.errors import OptionError
from edgeqwen.quant.atomic_file import check_writable
from edgeqwen.quant.imatrix import Imatrix


def check_outputs(written: Sequence[Path], read: Iterable[tuple[Path, str]]) -> None:
    """Makes sure that files can be written, and that none takes the place of one that is read.

    ``read``: paths, each with what messages call it. Links are followed, of both kinds. Raises
    OptionError where ``check_writable`` does, for an output that is read, and for one given twice.
    """
    inputs = [(path, what) for path, what in read if path.exists()]
    places: set[str] = set()
    for output in written:
        check_writable(output)
        for path, what in inputs:
            if output.exists() and output.samefile(path):
                raise OptionError(f"{output}: is {what}; choose another output")
        # Of files that aren't there yet, only the names can be compared.
        place = os.path.realpath(output)
        if place in places:
            raise OptionError(f"{output}: would be written twice; choose two names")
        places.add(place)


def conversion_inputs(
    source: Iterable[Path],
    imatrix: str | Path | Imatrix | None = None,
    text: Path | None = None,
) -> list[tuple[Path, str]]:
    """Returns what a conversion reads, for ``check_outputs``: the files of a source, and others.

    A ``text`` that is called by a hyphen comes from standard input.
    """
    found = [(path, "a file of the source") for path in source]
    if imatrix is not None and not isinstance(imatrix, Imatrix):
        found.append((Path(imatrix), "the importance matrix"))
    if text is not None and str(text) != "-":
        found.append((text, "the text to calibrate with"))
    return found
