"""A model without weights: enough of a GGUF file to plan and record, for compiling ahead."""

from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeqwen.config import ModelConfig
from edgeqwen.formats import FORMATS
from edgeqwen.formats.screened import LEAST_ROWS, SCREENED
from edgeqwen.gguf_file import GgmlType, TensorInfo

# Head dimension, and query heads that share a KV head, of the models from 0.5B to 72B.
HEADS = ((64, 7), (128, 6), (128, 8), (128, 7), (128, 5))


class UnloadedModel:
    """Stands in for a GgufFile of one layer whose matrices all have one type."""

    def __init__(self, type_: GgmlType, head_dim: int, group: int, *, vocab_size: int = 32) -> None:
        self.path = Path(f"(a model in {type_.name})")
        self._config = ModelConfig(
            architecture="qwen2",
            name="unloaded",
            n_layers=1,
            hidden_size=head_dim * group,
            intermediate_size=256,
            vocab_size=vocab_size,
            n_heads=group,
            n_kv_heads=1,
            head_dim=head_dim,
            rope_theta=1e6,
            rms_norm_eps=1e-6,
            max_context=64,
            tie_word_embeddings=True,
        )
        self.tensors = {
            name: self._tensor(name, shape, type_ if len(shape) == 2 else GgmlType.F32)
            for name, shape in self._config.expected_tensors().items()
        }

    is_packed = False
    size = 0

    def config(self) -> ModelConfig:
        return self._config

    def tensor(self, name: str) -> TensorInfo:
        return self.tensors[name]

    def data(self, name: str) -> NDArray[np.uint8]:
        return np.zeros(self.tensors[name].n_bytes, np.uint8)

    def read_ahead(self) -> Callable[[], None]:
        return lambda: None

    def release(self, name: str) -> None:
        pass

    def _tensor(self, name: str, shape: tuple[int, ...], type_: GgmlType) -> TensorInfo:
        return TensorInfo(name, type_, shape, 0, type_.n_bytes(shape))


def unloaded_family() -> Iterator[UnloadedModel]:
    """Yields models that together need every kernel of the formats and of the Qwen2.5 sizes."""
    first, *others = (GgmlType(number) for number in FORMATS)
    for head_dim, group in HEADS:
        yield UnloadedModel(first, head_dim, group)
    # Rows of whole superblocks.
    wide = next(heads for heads in HEADS if prod(heads) % 256 == 0)
    for type_ in others:
        yield UnloadedModel(type_, *wide)
    for number in SCREENED:
        yield UnloadedModel(GgmlType(number), *wide, vocab_size=LEAST_ROWS)
