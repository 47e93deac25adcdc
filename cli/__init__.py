"""The command line: ``edgeqwen COMMAND``. One file per command, each thin."""


def main() -> None:
    """Runs the command line with the arguments of the process, and exits."""
    from edgeqwen.cli.app import run

    run()
