"""HfCheckpoint: a folder as Hugging Face publishes models, checked against its config.json."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.config import ModelConfig
from edgeqwen.config_keys import printable
from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.quant.checkpoint import SourceTensor
from edgeqwen.quant.gguf_values import MetadataValue
from edgeqwen.quant.hf_metadata import read_metadata
from edgeqwen.quant.json_file import read_json
from edgeqwen.quant.names import is_derived, to_gguf_name, to_hf_name
from edgeqwen.quant.safetensors_file import FLOAT_DTYPES, StoredTensor
from edgeqwen.quant.safetensors_index import WeightFiles

# Of the files that make up a checkpoint.
_SUFFIXES = {".json", ".safetensors", ".txt", ".jinja"}


class HfCheckpoint:
    """A Hugging Face folder: config.json, safetensors, tokenizer and generation settings.

    Raises FileFormatError if a file is missing or damaged, or if the tensors aren't those of the
    configuration; UnsupportedError for other architectures, quantized weights and other dtypes.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "config.json"
        if not path.exists():
            raise FileFormatError(f"{folder}: no config.json; expected a Hugging Face checkpoint")
        content = read_json(path)
        self._folder = folder
        self.config = ModelConfig.from_hf(content, source=str(path))
        self.notes: list[str] = []
        self._weights = WeightFiles(folder)
        try:
            # Before the vocabulary: a vocab_size that the embedding has is one to make room for.
            self._stored = self._match()
            self.metadata: dict[str, MetadataValue] = {
                "general.architecture": self.config.architecture,
                "general.type": "model",
                **self.config.to_gguf(),
                **read_metadata(folder, content, self.config.vocab_size),
            }
        except BaseException:
            self._weights.close()
            raise
        if "tokenizer.chat_template" not in self.metadata:
            self.notes.append("the checkpoint has no chat template: the model only completes text")
        self.tensors = [
            SourceTensor(name, FLOAT_DTYPES[stored.dtype], stored.shape, f"{folder}: {stored.name}")
            for name, stored in self._stored.items()
        ]
        self.files = [file for file in folder.iterdir() if file.suffix in _SUFFIXES]

    def rows(self, tensor: SourceTensor, first: int, stop: int) -> npt.NDArray[np.uint8]:
        data = self._weights.data(self._stored[tensor.name].name)
        return data[first * tensor.row_bytes : stop * tensor.row_bytes]

    def release(self, tensor: SourceTensor, first: int, stop: int) -> None:
        name = self._stored[tensor.name].name
        self._weights.release(name, first * tensor.row_bytes, stop * tensor.row_bytes)

    def close(self) -> None:
        self._weights.close()

    def _match(self) -> dict[str, StoredTensor]:
        """Returns the stored tensors by GGUF name, in the order of the network."""
        expected = self.config.expected_tensors()
        found: dict[str, StoredTensor] = {}
        for hf_name, stored in self._weights.tensors.items():
            where = f"{self._folder}: {printable(hf_name)}"
            if is_derived(hf_name):
                continue
            name = to_gguf_name(hf_name)
            if name == "output.weight" and self.config.tie_word_embeddings:
                self.notes.append(f"{hf_name} is left out: config.json ties it to the embedding")
                continue
            if name not in expected:
                raise UnsupportedError(
                    f"{where}: no part of a Qwen2 model of {self.config.n_layers} layers; the "
                    "checkpoint can't be converted without it"
                )
            if name in found:
                raise FileFormatError(f"{where}: the same tensor as {printable(found[name].name)}")
            if stored.shape != expected[name]:
                raise FileFormatError(
                    f"{where}: shape {list(stored.shape)}, but config.json asks for "
                    f"{list(expected[name])}"
                )
            if stored.dtype not in FLOAT_DTYPES:
                raise UnsupportedError(
                    f"{where}: dtype {stored.dtype}; only {', '.join(FLOAT_DTYPES)} can be "
                    "converted, so take the original checkpoint"
                )
            found[name] = stored
        missing = [to_hf_name(name) for name in expected if name not in found]
        if missing:
            raise FileFormatError(
                f"{self._folder}: {len(missing)} of {len(expected)} tensors are missing, the first "
                f"is {missing[0]}; download the checkpoint again"
            )
        return {name: found[name] for name in expected}
