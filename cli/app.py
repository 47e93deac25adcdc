"""The ``edgeqwen`` program: its commands and global options."""

import signal
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from edgeqwen.cli import (
    bench,
    cache,
    chat,
    compare,
    imatrix,
    inspect,
    pack,
    perplexity,
    quantize,
    sessions,
    terminal,
    warmup,
)
from edgeqwen.cli import run as run_command
from edgeqwen.cli.failures import DEBUG_OPTION, guarded, report

app = typer.Typer(
    name="edgeqwen",
    help="Runs Qwen2.5 language models on this computer's CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="edgeqwen COMMAND --help tells more about a command.",
)

for name, command in (
    ("chat", chat.chat),
    ("run", run_command.run),
    ("quantize", quantize.quantize),
    ("imatrix", imatrix.imatrix),
    ("pack", pack.pack),
    ("inspect", inspect.inspect),
    ("bench", bench.bench),
    ("perplexity", perplexity.perplexity),
    ("compare", compare.compare),
    ("warmup", warmup.warmup),
):
    app.command(name)(guarded(command))

_GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "sessions": (
        "Conversations that were kept: edgeqwen chat --session NAME.",
        {
            "list": sessions.list_sessions,
            "show": sessions.show,
            "verify": sessions.verify,
            "copy": sessions.copy,
            "delete": sessions.delete,
        },
    ),
    "cache": (
        "Long prompts that were kept, so that they needn't be read again.",
        {"list": cache.list_prompts, "clear": cache.clear},
    ),
}
for _group, (_help, _commands) in _GROUPS.items():
    _grouped = typer.Typer(help=_help, no_args_is_help=True)
    for _name, _command in _commands.items():
        _grouped.command(_name)(guarded(_command))
    app.add_typer(_grouped, name=_group)


def _version(value: bool) -> None:
    if value:
        from edgeqwen import __version__

        print(f"edgeqwen {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: bool = DEBUG_OPTION,
) -> None:
    """Takes the options that stand before the command."""


def run() -> NoReturn:
    """Runs the program and exits with its code."""
    terminal.prepare_streams()
    # A polite request to end lets a command clean up behind itself, like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    code: object = 0
    try:
        app(prog_name="edgeqwen")
    except SystemExit as leaving:
        code = leaving.code
    except BaseException as error:
        code = report(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = report(error)
    sys.exit(code)  # type: ignore[arg-type]
