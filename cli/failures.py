"""How a command ends when something goes wrong: one line and an exit code, never a traceback."""

import errno
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from edgeqwen.cli import terminal
from edgeqwen.errors import EdgeqwenError

FAILED = 1
INTERRUPTED = 130
BROKEN_PIPE = 141

_asked_for_tracebacks = False


def _debug_option(value: bool) -> None:
    global _asked_for_tracebacks
    _asked_for_tracebacks = _asked_for_tracebacks or value


def _shows_tracebacks() -> bool:
    return _asked_for_tracebacks or os.environ.get("EDGEQWEN_DEBUG", "0") not in ("", "0")


DEBUG_OPTION = typer.Option(
    False,
    "--debug",
    callback=_debug_option,
    help="Show the traceback of an error (so does EDGEQWEN_DEBUG=1).",
)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the option ``--debug`` and turns its exceptions into a line and a code."""

    @functools.wraps(command)
    def run(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BaseException as error:
            raise typer.Exit(report(error)) from None

    # Typer reads a command's options from its signature.
    signature = inspect.signature(command)
    option = inspect.Parameter(
        "debug", inspect.Parameter.KEYWORD_ONLY, default=DEBUG_OPTION, annotation=bool
    )
    parameters = [*signature.parameters.values(), option]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, "debug": bool}
    return run


def report(error: BaseException) -> int:
    """Prints what a user should know of an error and returns the exit code."""
    if isinstance(error, SystemExit):
        raise error
    if _shows_tracebacks():
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        terminal.silence(sys.stdout)
        return BROKEN_PIPE
    try:
        sys.stdout.flush()
    except OSError:
        terminal.silence(sys.stdout)
    terminal.error_line(describe(error))
    return FAILED


def describe(error: BaseException) -> str:
    """Returns the line that tells a user about an error."""
    if isinstance(error, EdgeqwenError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "out of memory: a smaller model, a smaller type (edgeqwen quantize -t q4_0) or "
            "a shorter context (--context) needs less"
        )
    if isinstance(error, OSError) and error.errno is not None:
        place = f"{error.filename}: " if error.filename is not None else ""
        advice = ": free some space there" if error.errno == errno.ENOSPC else ""
        return f"{place}{os.strerror(error.errno)}{advice}"
    return (
        f"unexpected {type(error).__name__}: {error}; this is a fault of edgeqwen: please report "
        "it with what the same command prints with --debug"
    )
