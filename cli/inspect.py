"""``edgeqwen inspect``: what a GGUF file holds."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeqwen.cli import options


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A GGUF file.")],
    as_json: options.Json = False,
) -> None:
    """Show a file's configuration, metadata, tensors, sizes and bits per weight."""
    from edgeqwen.cli.contents import as_fields, as_text
    from edgeqwen.cli.terminal import clean
    from edgeqwen.errors import UnsupportedError
    from edgeqwen.gguf_file import GgufFile

    with GgufFile.open(file) as opened:
        try:
            config, problem = opened.config(), None
        except UnsupportedError as error:
            # A model of another family: its tensors can be listed all the same.
            config, problem = None, error
        if as_json:
            print(json.dumps(as_fields(opened, config, problem)))
        else:
            print(clean(as_text(opened, config, problem)))
