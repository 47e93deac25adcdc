"""The weights of a Hugging Face folder: one safetensors file, or shards listed by an index."""

import contextlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.config_keys import printable, shown
from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.quant.json_file import read_json
from edgeqwen.quant.safetensors_file import SafetensorsFile, StoredTensor

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")


class WeightFiles:
    """All tensors of a checkpoint by name, whichever file they lie in.

    Raises FileFormatError if a file is missing or damaged, if the index contradicts the files, or
    if a tensor lies in two of them; UnsupportedError for pickled checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        placed = _placement(folder)
        self._opened = contextlib.ExitStack()
        self._file_of: dict[str, SafetensorsFile] = {}
        try:
            for name in sorted(set(placed.values())) or [SINGLE_FILE]:
                file = self._opened.enter_context(SafetensorsFile(folder / name))
                for tensor in file.tensors:
                    if tensor in self._file_of:
                        raise FileFormatError(
                            f"{file.path}: {printable(tensor)} is in {self._file_of[tensor].path} "
                            "as well"
                        )
                    self._file_of[tensor] = file
            for tensor, name in placed.items():
                if tensor not in self._file_of or self._file_of[tensor].path.name != name:
                    raise FileFormatError(
                        f"{folder / INDEX_FILE}: {printable(tensor)} should be in {name}, "
                        "but isn't; download the checkpoint again"
                    )
        except BaseException:
            self._opened.close()
            raise

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """The tensors by name."""
        return {name: file.tensors[name] for name, file in self._file_of.items()}

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the bytes of a tensor, a read-only view of the mapping."""
        return self._file_of[name].data(name)

    def release(self, name: str, start: int, stop: int) -> None:
        """Lets go of the memory that reading bytes [start, stop) of a tensor took."""
        self._file_of[name].release(name, start, stop)

    def close(self) -> None:
        """Drops all mappings."""
        self._opened.close()


def _placement(folder: Path) -> dict[str, str]:
    """Returns which file each tensor lies in; empty where there is only one file."""
    if (folder / SINGLE_FILE).exists():
        return {}
    index = folder / INDEX_FILE
    if not index.exists():
        raise _no_weights(folder)
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise FileFormatError(
            f"{index}: weight_map is {shown(placed)}, expected the file of each tensor"
        )
    for tensor, name in placed.items():
        if not _is_plain_name(name):
            raise FileFormatError(
                f"{index}: {printable(tensor)} lies in {shown(name)}, "
                "expected the name of a .safetensors file beside the index"
            )
    missing = sorted({name for name in placed.values() if not (folder / name).exists()})
    if missing:
        raise FileFormatError(
            f"{folder}: {len(missing)} of {len(set(placed.values()))} weight files are missing, "
            f"the first is {printable(missing[0])}; download the checkpoint again"
        )
    return placed


def _is_plain_name(name: object) -> bool:
    """Says whether an index may name this file: it mustn't reach outside of its folder."""
    if not isinstance(name, str) or not name.endswith(".safetensors"):
        return False
    return len(name) <= 200 and name.isprintable() and not set(name) & set("/\\:")


def _no_weights(folder: Path) -> FileFormatError | UnsupportedError:
    if any((folder / name).exists() for name in _PICKLES):
        return UnsupportedError(
            f"{folder}: holds a pickled PyTorch checkpoint, which can run code when it is read; "
            "save the model as safetensors"
        )
    shards = list(folder.glob("*.safetensors"))
    if shards:
        return FileFormatError(
            f"{folder}: holds {printable(min(shards).name)}, but neither {SINGLE_FILE} nor "
            f"{INDEX_FILE}; download the whole checkpoint"
        )
    return FileFormatError(
        f"{folder}: no weights; expected {SINGLE_FILE}, or {INDEX_FILE} and its files"
    )
