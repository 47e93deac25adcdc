"""True shapes of Qwen2.5, and the tensor types that llama-quantize gave such models.

The types are kept in ``llama_quantize_types.txt``: a line for each model and recipe, with how many
tensors there are of each type, and the CRC-32 of all names and types. A recipe "+imatrix" was told
that the importance of columns is known. ``python -m tests.peers.test_llama_quantize`` writes it.
"""

import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgeqwen.config import ModelConfig
from edgeqwen.quant import TYPES
from edgeqwen.quant.recipe import fitting, recipe_named

TABLE = Path(__file__).with_name("llama_quantize_types.txt")
RECIPES = (*TYPES, *(f"{name}+imatrix" for name in TYPES))


def config(
    *,
    n_layers: int = 2,
    hidden_size: int = 64,
    intermediate_size: int = 96,
    vocab_size: int = 128,
    heads: tuple[int, int] = (4, 2),
    tied: bool = True,
) -> ModelConfig:
    """Returns a configuration; ``heads`` are those of queries, and of keys and values."""
    return ModelConfig(
        architecture="qwen2",
        name="x",
        n_layers=n_layers,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        vocab_size=vocab_size,
        n_heads=heads[0],
        n_kv_heads=heads[1],
        head_dim=hidden_size // heads[0],
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        max_context=32768,
        tie_word_embeddings=tied,
    )


MODELS = {
    "0.5B": config(n_layers=24, hidden_size=896, intermediate_size=4864, heads=(14, 2)),
    "1.5B": config(n_layers=28, hidden_size=1536, intermediate_size=8960, heads=(12, 2)),
    "7B": config(n_layers=28, hidden_size=3584, intermediate_size=18944, heads=(28, 4), tied=False),
    "72B": config(
        n_layers=80, hidden_size=8192, intermediate_size=29568, heads=(64, 8), tied=False
    ),
    # Not published: fewer heads share keys and values than in any that is.
    "other": config(
        n_layers=17, hidden_size=768, intermediate_size=1056, heads=(12, 4), tied=False
    ),
}


def our_types(recipe: str, model: ModelConfig) -> dict[str, str]:
    """Returns the types that the converter gives a model, by tensor; for a name of RECIPES."""
    name, plus, _ = recipe.partition("+")
    chosen = recipe_named(name)
    found = {}
    for tensor, shape in model.expected_tensors().items():
        wanted = chosen.wanted(tensor, shape, model, has_imatrix=bool(plus))
        found[tensor] = fitting(wanted, shape[-1]).name
    return found


def summary(types: Mapping[str, str]) -> str:
    """Returns how many tensors there are of each type, and a checksum of all of them."""
    text = "".join(f"{name} {types[name]}\n" for name in sorted(types))
    counts = " ".join(f"{n}x{type}" for type, n in sorted(Counter(types.values()).items()))
    return f"{counts} {zlib.crc32(text.encode()):08x}"


def read_table() -> dict[tuple[str, str], str]:
    """Returns the summaries of what llama-quantize chose, by model and recipe."""
    lines = [line.split(maxsplit=2) for line in TABLE.read_text("utf-8").splitlines()]
    return {(model, recipe): found for model, recipe, found in lines}
