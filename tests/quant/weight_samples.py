"""Weights of the kinds that encoders meet: of known distributions, and trained ones."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.checkpoint import open_checkpoint
from edgeqwen.quant.decode import to_floats

Floats = npt.NDArray[np.float32]

GUIDE = Path(__file__).parents[2] / "tools/guide_model/edgeqwen-guide"
KINDS = ("normal", "t4", "t2.2", "trained")


def sample(kind: str, n_rows: int, columns: int, seed: int = 0) -> Floats:
    """Returns float32 [n_rows][columns] of a kind; "t4" has 4 degrees of freedom."""
    shape = n_rows, columns
    if kind == "trained":
        return trained()[: n_rows * columns].reshape(shape)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) if kind == "normal" else rng.standard_t(float(kind[1:]), shape)
    return (x * 0.02).astype(np.float32)


def trained() -> Floats:
    """Returns the rows of some matrices of the built-in model's checkpoint, one after the other."""
    checkpoint = open_checkpoint(GUIDE)
    rows = []
    for tensor in checkpoint.tensors:
        if tensor.name.startswith("blk.2.") and len(tensor.shape) > 1:
            data = checkpoint.rows(tensor, 0, 64)
            scratch = np.empty(64 * tensor.shape[-1], np.float32)
            rows.append(to_floats(tensor.type, data, scratch).copy())
    checkpoint.close()
    return np.concatenate(rows)


def importance(columns: int, seed: int = 1) -> Floats:
    """Returns float32 [columns] as uneven as those of real activations."""
    found: Floats = np.exp(np.random.default_rng(seed).standard_normal(columns) * 1.2)
    return found.astype(np.float32)
