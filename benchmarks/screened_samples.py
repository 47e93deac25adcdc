"""Random heads and hidden states, those among them that a screen has most trouble with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.encode import encode
from tests.oracles.screen import Weights

Floats = NDArray[np.float32]

HEADS = ("normal", "outlier channels", "heavy-tailed")
OUTLIERS = 12.0  # how much larger the weights of a channel with outliers are
# Of so many random logits as a small head has, or a true one, the 20th is so large, in deviations.
TWENTIETH = (3.0, 3.65)


@dataclass(frozen=True, slots=True)
class SampleHead:
    """A head in one type. ``rows``: GGUF's bytes, uint8 [n_rows, row_bytes]."""

    kind: str
    type: GgmlType
    n_columns: int
    rows: NDArray[np.uint8]

    @classmethod
    def make(
        cls, kind: str, type_: GgmlType, n_rows: int, n_columns: int, rng: np.random.Generator
    ) -> "SampleHead":
        rows = np.empty((n_rows, type_.n_bytes((1, n_columns))), np.uint8)
        gain = np.ones(n_columns, np.float32)
        if kind == "outlier channels":
            gain[rng.permutation(n_columns)[: max(2, n_columns // 400)]] = OUTLIERS
        for first in range(0, n_rows, 4096):
            n = min(4096, n_rows - first)
            part = rng.standard_normal((n, n_columns), np.float32) * gain
            if kind == "heavy-tailed":
                part /= np.sqrt(rng.chisquare(4, part.shape).astype(np.float32) / 4)
            # Tokens' rows aren't of one length.
            part *= np.exp(np.float32(0.2) * rng.standard_normal((n, 1), np.float32))
            if not encode(type_, np.ascontiguousarray(part), rows[first : first + n].reshape(-1)):
                raise AssertionError(f"{kind} weights that {type_.name} can't hold")
        return cls(kind, type_, n_columns, rows)

    def read(self, first: int, n: int = 1) -> Weights:
        """Returns some rows as integers and scales."""
        return Weights.read(self.type.name, self.rows[first : first + n])


Sample = Callable[[SampleHead, np.random.Generator], Floats]


def _normal(head: SampleHead, rng: np.random.Generator) -> Floats:
    return rng.standard_normal(head.n_columns, np.float32)


def _outliers(head: SampleHead, rng: np.random.Generator) -> Floats:
    x = _normal(head, rng)
    x[rng.integers(0, head.n_columns, max(2, head.n_columns // 64))] *= 30
    return x


def _heavy_tailed(head: SampleHead, rng: np.random.Generator) -> Floats:
    return rng.standard_t(2, head.n_columns).astype(np.float32)


def _one_block(head: SampleHead, rng: np.random.Generator) -> Floats:
    x = np.zeros(head.n_columns, np.float32)
    first = 32 * int(rng.integers(head.n_columns // 32))
    x[first : first + 32] = rng.standard_normal(32, np.float32)
    return x


def _one_sided(head: SampleHead, rng: np.random.Generator) -> Floats:
    return np.abs(_normal(head, rng)) + np.float32(1)


def _a_row(head: SampleHead, rng: np.random.Generator) -> Floats:
    return _unit(_values(head, rng, 1)[0]) + _normal(head, rng)


def _near_ties(head: SampleHead, rng: np.random.Generator) -> Floats:
    """The sum of 40 rows: all of them are among the largest, one about as large as the other."""
    return np.sum([_unit(row) for row in _values(head, rng, 40)], axis=0)


def pushed(head: SampleHead, rng: np.random.Generator, deviations: float) -> tuple[Floats, int]:
    """Returns a hidden state made from the weights, and the row that it would hide.

    The row is near the 20th of all, and its own low bits push it there by so many standard
    deviations, of which the high bits tell nothing.
    """
    i = int(rng.integers(len(head.rows)))
    weights = head.read(i)
    row = (weights.q * weights.by_column).ravel()
    low = (weights.errors * weights.by_column).ravel()
    near = TWENTIETH[len(head.rows) > 1 << 16] + rng.uniform(-1, 1)
    x = deviations * low / np.linalg.norm(low) + near * row / np.linalg.norm(row)
    return _normal(head, rng) + x.astype(np.float32), i


def _pushed(head: SampleHead, rng: np.random.Generator) -> Floats:
    return pushed(head, rng, 3.0)[0]


def _values(head: SampleHead, rng: np.random.Generator, n: int) -> Floats:
    """Returns the weights of some rows that follow one another."""
    weights = head.read(int(rng.integers(len(head.rows) - n)), n)
    return (weights.q * weights.by_column).reshape(n, -1).astype(np.float32)


def _unit(row: Floats) -> Floats:
    """Returns a row whose values are 1 on average, squared."""
    return row / np.float32(np.sqrt(np.mean(np.square(row))))


HIDDEN_STATES: dict[str, Sample] = {
    "normal": _normal,
    "outliers": _outliers,
    "heavy-tailed": _heavy_tailed,
    "one block of columns": _one_block,
    "all of one sign": _one_sided,
    "a row of the head": _a_row,
    "near ties": _near_ties,
    "pushed by 3 deviations": _pushed,
}
