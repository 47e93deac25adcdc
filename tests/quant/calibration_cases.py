"""What calibration is tested on: layers of the trained model, and texts of the kind it knows."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.gguf_file import GgufFile
from edgeqwen.guide import held_out_text
from tests.hf_checkpoints import safetensors_header
from tests.oracles.blocks import read_weights
from tests.oracles.qwen2 import Qwen2
from tests.quant.weight_samples import GUIDE

Doubles = npt.NDArray[np.float64]


def trained_layers(folder: Path, n_layers: int) -> Path:
    """Writes a checkpoint of the first layers of the trained model, and returns its folder."""
    folder.mkdir(parents=True)
    for file in GUIDE.iterdir():
        if file.suffix == ".json":
            shutil.copy(file, folder)
    config = json.loads((GUIDE / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": n_layers}))
    data = (GUIDE / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    parts, entries = [], {}
    for name, entry in header.items():
        layer = name.split(".")[2] if name.startswith("model.layers.") else "0"
        if name != "__metadata__" and int(layer) < n_layers:
            first, stop = entry["data_offsets"]
            parts.append(data[8 + size + first : 8 + size + stop])
            entries[name] = (entry["dtype"], tuple(entry["shape"]), stop - first)
    content = safetensors_header(entries) + b"".join(parts)
    (folder / "model.safetensors").write_bytes(content)
    return folder


def texts() -> tuple[str, str]:
    """Returns two texts of one kind: to calibrate with, and to measure with."""
    text = held_out_text()
    middle = text.index("<|im_start|>system", len(text) // 2)
    return text[:middle], text[middle:]


def log_probabilities(path: Path, tokens: npt.NDArray[np.int64]) -> Doubles:
    """Returns ln p of all next tokens by the twin: [n_tokens][vocab_size], float64."""
    with GgufFile.open(path) as file:
        config = file.config()
    logits = Qwen2(config, read_weights(path)).logits(tokens)
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def divergence(source: Doubles, other: Doubles) -> float:
    """Returns the mean KL divergence of next-token distributions from the source's, in nats."""
    return float((np.exp(source) * (source - other)).sum(axis=1).mean())
