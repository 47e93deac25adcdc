"""Weights of the kinds that encoders meet: of known distributions, and trained ones."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.checkpoint import open_checkpoint
from edgeqwen.quant.decode import to_floats

Floats = npt.NDArray[np.float32]

GUIDE = Path(__file__).parents[2] / "tools/guide_model/edgeqwen-guide"
# Of normal distributions, columns of outliers among them, or both signs of 1 with little around it;
# of Student's t, with so many degrees of freedom; trained; and such as codes can say exactly.
KINDS = ("normal", "outliers", "bimodal", "t4", "t2.2", "trained", "ternary", "constant")
EXACT = ("ternary", "constant")
OUTLIERS = slice(0, None, 97)


def sample(kind: str, n_rows: int, columns: int, seed: int = 0) -> Floats:
    """Returns float32 [n_rows][columns] of one of ``KINDS``, or of "t" and degrees of freedom."""
    shape = n_rows, columns
    if kind == "trained":
        return trained()[: n_rows * columns].reshape(shape)
    rng = np.random.default_rng(seed)
    if kind == "constant":
        x = np.full(shape, 18.5)
    elif kind == "ternary":
        x = rng.integers(-1, 2, shape).astype(np.float64)
    elif kind in ("normal", "outliers", "bimodal"):
        x = rng.standard_normal(shape)
        if kind == "outliers":
            x[:, OUTLIERS] *= 30
        elif kind == "bimodal":
            x = rng.choice((-1, 1), shape) + 0.05 * x
    else:
        x = rng.standard_t(float(kind[1:]), shape)
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
