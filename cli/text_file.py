"""The text that a command reads: a file's, or that of standard input."""

import sys
from pathlib import Path


def read_text(path: Path) -> str:
    """Returns the text of a file, or of standard input where the path is a hyphen.

    Raises FileFormatError for what is no UTF-8, and OSError.
    """
    from edgeqwen.errors import FileFormatError

    is_input = str(path) == "-"
    content = sys.stdin.buffer.read() if is_input else path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{'standard input' if is_input else path}: byte {error.start} is no UTF-8 "
            f"({error.reason}), expected a text in UTF-8; convert it"
        ) from None
