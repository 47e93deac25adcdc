"""``python -m edgeqwen``: the command line."""

from edgeqwen.cli import main

main()
