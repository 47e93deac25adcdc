"""What the benchmark of converting reads: F16 files with random weights in true shapes."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import synthetic
from edgeqwen.quant import quantize
from tests.hf_checkpoints import write_checkpoint

SHAPES: dict[str, dict[str, Any]] = {
    **synthetic.SHAPES,
    # One layer is what memory must not depend on: its largest matrix takes 0.5 GB.
    "72B-layer": {
        "n_layers": 1,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "n_heads": 64,
        "n_kv_heads": 8,
    },
}


def source_file(shape: str) -> Path:
    """Returns an F16 GGUF file of a shape in SHAPES, which it makes when new.

    It stays in the system's folder for temporary files: 1 to 3 GB each. Making one streams, and
    takes a checkpoint of the same size beside it for a while. Vocabularies are small: their texts
    are copied, not converted.
    """
    folder = Path(tempfile.gettempdir()) / "edgeqwen-benchmarks"
    path = folder / f"random-{shape}-small-vocabulary-f16.gguf"
    if path.exists():
        return path
    print(f"making {path.name} ...", flush=True)
    checkpoint = folder / f"random-{shape}-f16-hf"
    write_checkpoint(checkpoint, **SHAPES[shape], max_context=synthetic.MAX_CONTEXT, dtype="f16")
    quantize(checkpoint, path, "f16")
    shutil.rmtree(checkpoint)
    return path
