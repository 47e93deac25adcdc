"""The model that comes with edgeqwen: a small one, trained to answer questions about edgeqwen."""

import atexit
from contextlib import ExitStack
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from edgeqwen.errors import FileFormatError

# A file inside an archive is unpacked once, and its copy stays as long as the program runs.
_unpacked = ExitStack()
atexit.register(_unpacked.close)
_model: Path | None = None


def model_path() -> Path:
    """Returns the path of the built-in model, a GGUF file.

    Where edgeqwen is packed into an archive, it is the path of a temporary copy. Raises
    FileFormatError if the installation lacks the file.
    """
    global _model
    if _model is None or not _model.is_file():
        _model = _unpacked.enter_context(resources.as_file(_resource("guide.gguf")))
    return _model


def held_out_text() -> str:
    """Returns conversations in ChatML, special tokens included, that the model never saw.

    Raises FileFormatError if the installation lacks the file.
    """
    return _resource("held_out.txt").read_text("utf-8")


def _resource(name: str) -> Traversable:
    found = resources.files(__package__) / name
    if not found.is_file():
        raise FileFormatError(
            f"{found}: no such file, expected the one that comes with edgeqwen: this installation "
            "isn't whole; install edgeqwen again, or name a model of your own"
        )
    return found
