"""The command line: ``edgeqwen COMMAND``. One file per command, each thin."""


def main() -> None:
    """Runs the command line with the arguments of the process, and exits."""
    try:
        from edgeqwen.cli.app import run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()
