"""Weights to encode: random ones of two kinds, and those of the built-in model."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgeqwen
from benchmarks.calibration_text import training_text
from edgeqwen.importance import collect
from edgeqwen.quant import quantize
from edgeqwen.quant.checkpoint import open_checkpoint
from edgeqwen.quant.decode import to_floats

Floats = NDArray[np.float32]

COLUMNS = 4096  # of random weights
STUDENT_T = 4  # degrees of freedom: tails as heavy as those of channels with outliers


@dataclass(frozen=True, slots=True)
class Sample:
    """A matrix, float32 [rows, columns], and how much each of its columns matters, [columns]."""

    weights: Floats
    importance: Floats


def random_samples(n_weights: int) -> dict[str, list[Sample]]:
    """Returns normal and heavy-tailed weights by name, with log-normal importance (sigma 1)."""
    rng = np.random.default_rng(0)
    shape = (max(1, n_weights // COLUMNS), COLUMNS)
    importance = rng.lognormal(0.0, 1.0, COLUMNS).astype(np.float32)
    drawn = {
        "normal": rng.standard_normal(shape),
        "heavy-tailed": rng.standard_t(STUDENT_T, shape),
    }
    return {name: [Sample((0.02 * x).astype(np.float32), importance)] for name, x in drawn.items()}


def trained_samples(checkpoint: Path, n_tokens: int, n_threads: int) -> list[Sample]:
    """Returns the matrices of all layers, with an importance matrix collected from a text.

    The text has ``n_tokens`` tokens of the training side of the built-in model's corpus.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f16.gguf"
        quantize(checkpoint, path, "f16")
        with edgeqwen.load(path, n_threads=n_threads) as model:
            imatrix = collect(model, training_text(model.tokenizer, n_tokens)[1])
    source = open_checkpoint(checkpoint)
    found = []
    try:
        for tensor in source.tensors:
            importance = imatrix.importance(tensor.name)
            if importance is not None:
                data = source.rows(tensor, 0, tensor.n_rows)
                scratch = np.empty(tensor.n_rows * tensor.shape[-1], np.float32)
                weights = np.array(to_floats(tensor.type, data, scratch))
                found.append(Sample(weights.reshape(tensor.shape), importance))
    finally:
        source.close()
    return found
