"""Tiny models on the real engine: small shapes, but all formats, heads and odd numbers of rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile
from tests.gguf_samples import tiny_metadata, tiny_tensors, write_tiny_gguf
from tests.oracles.blocks import read_weights, tensor_types
from tests.oracles.qwen2 import Qwen2

# The heads of the 0.5B, so that kernels are shared with other tests; 331 tokens are no whole tiles.
SHAPE: dict[str, Any] = {
    "vocab_size": 331,
    "n_layers": 2,
    "hidden_size": 96,
    "intermediate_size": 160,
    "n_heads": 7,
    "n_kv_heads": 1,
    "head_dim": 64,
    "max_context": 1024,
    "k_bias": 5.0,
}
# Two KV heads of float32, for comparisons without rounding.
F32_CACHE: dict[str, Any] = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 32}
INTEGER_TYPES = ("Q4_0", "Q8_0")


def write_model(path: Path, **options: Any) -> Path:
    """Writes a tiny model; the options are those of ``write_tiny_gguf``, over SHAPE."""
    write_tiny_gguf(path, **{**SHAPE, **options})
    return path


def tensors(**sizes: Any) -> dict[str, np.ndarray]:
    """Returns the tensors that ``write_model`` writes for the same sizes."""
    merged = {**SHAPE, **sizes}
    k_bias = merged.pop("k_bias")
    return tiny_tensors(tiny_metadata(**merged), k_bias=k_bias)


@contextmanager
def open_engine(path: Path, **options: Any) -> Iterator[Engine]:
    with GgufFile.open(path) as file:
        engine = Engine(file, **{"n_threads": 2, **options})
        try:
            yield engine
        finally:
            engine.close()


def oracle(path: Path, *, cache_type: str = "f16", apart: np.ndarray | None = None) -> Qwen2:
    """Returns the twin in numpy, with the engine's own roundings."""
    types, weights = tensor_types(path), read_weights(path)
    with GgufFile.open(path) as file:
        config = file.config()
    int8 = [name for name, kind in types.items() if kind in INTEGER_TYPES]
    return Qwen2(config, weights, int8=int8, cache_type=cache_type, apart=apart)


def random_tokens(n: int, seed: int = 1) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(0, SHAPE["vocab_size"], n).tolist()
    return found
