"""Text to and from the terminal: nothing in it can steer the terminal or break the program."""

import contextlib
import os
import sys
from typing import IO, Any

# C0 and C1 control characters (ESC begins the sequences that move the cursor, rename the window or
# answer queries; U+009B is ESC [ in one character), and the marks that reorder the text around
# them. A newline and a tab are harmless; a carriage return alone overwrites the line.
_HARMFUL = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **{code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    ord("\r"): "",
}
_HARMFUL_IN_TEXT = {code: shown for code, shown in _HARMFUL.items() if chr(code) not in "\n\t"}


def clean(text: str) -> str:
    """Returns text of several lines with its control characters made visible and harmless."""
    return text.translate(_HARMFUL_IN_TEXT)


def clean_line(text: str) -> str:
    """Returns text as one harmless line."""
    return " ".join(text.split("\n")).translate(_HARMFUL)


def valid_unicode(text: str) -> str:
    """Returns what the user typed, with U+FFFD for what is no valid Unicode.

    Python hands bytes that it can't decode to a program as lone surrogates.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def prepare_streams() -> None:
    """Makes the standard streams safe to use: present, and able to print any character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name)
        if stream is None:
            # Whoever started the program closed it. The null device takes its number, so that no
            # file that is opened later gets it and with it what somebody writes to the stream.
            number = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def silence(stream: IO[str]) -> None:
    """Sends all further output of a stream to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def error_line(message: str) -> None:
    """Prints one line on standard error, red where colours are welcome."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    text = Text(f"edgeqwen: {clean_line(message)}", style="red")
    console.print(text, soft_wrap=True)


def note_line(message: str) -> None:
    """Prints one line on standard error that nobody must read, dim where that can be shown."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    console.print(Text(clean_line(message), style="dim"), soft_wrap=True)


def size_text(n_bytes: int) -> str:
    """Returns a size for people, in binary units."""
    if n_bytes < 1024:
        return f"{n_bytes} B"
    size = n_bytes / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
