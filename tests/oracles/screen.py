"""The screen of a head in plain numpy, in float64, from what its kernels' documentation says."""

from dataclasses import dataclass

import gguf
import numpy as np

from tests.oracles.blocks import quantize_int8


@dataclass(frozen=True)
class Weights:
    """Weights as integers and scales, read from GGUF's bytes.

    q: int64 [n_rows, n_blocks, 32], a weight is q * scale; scales: float64 [n_rows, n_blocks,
    groups]. q is step * high + low, low from 0 to step - 1.
    """

    q: np.ndarray
    scales: np.ndarray
    step: int

    @classmethod
    def read(cls, name: str, rows: np.ndarray) -> "Weights":
        """``rows``: uint8 [n_rows, row_bytes] of Q8_0 or Q6_K."""
        n_rows = len(rows)
        if name == "Q8_0":
            blocks = rows.reshape(n_rows, -1, 34)
            scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float64)
            return cls(blocks[..., 2:].view(np.int8).astype(np.int64), scales, 16)
        blocks = rows.reshape(n_rows, -1, 210).copy()
        d = np.ascontiguousarray(blocks[..., 208:]).view(np.float16).astype(np.float64)
        small = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float64)
        scales = (small * d).reshape(n_rows, -1, 2)
        # With all scales 1, gguf's own reader gives the integers.
        blocks[..., 192:208] = 1
        blocks[..., 208:] = np.array([1.0], np.float16).view(np.uint8)
        plain = gguf.quants.dequantize(blocks.reshape(n_rows, -1), gguf.GGMLQuantizationType[name])
        return cls(plain.astype(np.int64).reshape(n_rows, -1, 32), scales, 4)

    @property
    def by_column(self) -> np.ndarray:
        """Each column's scale: float64 [n_rows, n_blocks, 32]."""
        return np.repeat(self.scales, 32 // self.scales.shape[2], axis=2)

    @property
    def errors(self) -> np.ndarray:
        """What the weights are off by without their low bits, in steps of the scale."""
        low = self.q - self.step * np.floor_divide(self.q, self.step)
        return low - (self.step - 1) / 2

    def lines(self) -> np.ndarray:
        """Which line of a block's low bits holds each of its columns: int64 [32]."""
        n_lines = {16: 4, 4: 2}[self.step]
        return np.arange(32) // 4 % n_lines


def chosen_lines(weights: Weights, x: np.ndarray, most: int, least: float) -> list[tuple[int, int]]:
    """Returns (block, line) of those that cause most of the errors' variance, the worst first."""
    squares = _activations(x) ** 2
    sizes = (weights.by_column**2).mean(axis=0)
    n_lines = weights.lines().max() + 1
    shares = np.stack(
        [(squares * sizes)[:, weights.lines() == line].sum(axis=1) for line in range(n_lines)], 1
    )
    order = np.argsort(-shares.ravel(), kind="stable")[:most]
    kept = [i for i in order if shares.ravel()[i] > least * shares.sum()]
    return [(int(i) // n_lines, int(i) % n_lines) for i in kept]


def coarse(
    weights: Weights, x: np.ndarray, lines: list[tuple[int, int]], rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logits without low bits but those of ``lines``, and standard deviations.

    x: float32 [n_columns]. ``rounding``: what part of the lines' variance still counts. Both are
    float64 [n_rows].
    """
    activations = _activations(x)
    known = np.zeros(activations.shape, bool)
    for block, line in lines:
        known[block, weights.lines() == line] = True
    errors = np.where(known, 0, weights.errors)
    logits = ((weights.q - errors) * weights.by_column * activations).sum(axis=(1, 2))
    squares = activations**2 * np.where(known, rounding, 1)
    variance = (weights.step**2 - 1) / 12
    spread = variance * (weights.by_column**2 * squares).sum(axis=(1, 2))
    return logits, np.sqrt(spread)


def survivors(
    bounds: np.ndarray, more: np.ndarray, seeds: np.ndarray, threshold: float, widening: float
) -> list[int]:
    """Returns the tiles besides the seeds whose bound, widened, reaches the threshold."""
    reached = ~(bounds + (max(widening, 1) - 1) * more < threshold)
    reached[seeds] = False
    return np.flatnonzero(reached).tolist()


def worth(logits: np.ndarray, penalised: np.ndarray, repetition: float, most: float) -> np.ndarray:
    """Returns what logits are worth at least after penalties, float64."""
    values = logits.astype(np.float64)
    lowered = np.where(values > 0, values / repetition, values * repetition) - most
    return np.where(penalised, lowered, values)


def _activations(x: np.ndarray) -> np.ndarray:
    """The activations as the runtime rounds them: float64 [n_blocks, 32]."""
    q, scale = quantize_int8(x)
    return q.astype(np.float64) * scale.astype(np.float64)
