"""Files with random weights in the true shapes, made once and kept for the next run."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgeqwen.quant import quantize
from tests.hf_checkpoints import write_checkpoint
from tests.hf_tokenizers import SHARED_VOCABULARY

SHAPES: dict[str, dict[str, Any]] = {
    "0.5B": {
        "n_layers": 24,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "n_heads": 14,
        "n_kv_heads": 2,
        "vocab_size": 151936,
    },
    "1.5B": {
        "n_layers": 28,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "n_heads": 12,
        "n_kv_heads": 2,
        "vocab_size": 151936,
    },
}
TYPES = ("q4_0", "q4_k_m", "q8_0")
MAX_CONTEXT = 32768


def model_file(shape: str, type: str) -> Path:
    """Returns a GGUF file of a shape in SHAPES and a type in TYPES, which it makes when new.

    It stays in the system's folder for temporary files: 0.4 to 1.9 GB each. Making one takes a
    checkpoint in bf16 beside it for a while, and a minute or more.
    """
    # The number of tokens is the true one in any case; the real texts and merges, which only
    # loading looks at, are there where ../shared is.
    vocabulary = "real" if SHARED_VOCABULARY.exists() else "small"
    folder = Path(tempfile.gettempdir()) / "edgeqwen-benchmarks"
    path = folder / f"random-{shape}-{vocabulary}-vocabulary-{type}.gguf"
    if path.exists():
        return path
    print(f"making {path.name} ...", flush=True)
    source = folder / f"random-{shape}-hf"
    write_checkpoint(source, **SHAPES[shape], max_context=MAX_CONTEXT, tokenizer=vocabulary)
    quantize(source, path, type)
    shutil.rmtree(source)
    return path
