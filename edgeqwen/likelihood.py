"""Log probabilities of logits, how far two of them are apart, and means with standard errors."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeqwen.errors import EdgeqwenError

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean over tokens, and its standard error (``se``): None for a single token."""

    mean: float
    se: float | None

    def exp(self) -> "Estimate":
        """Returns e to the mean, and that times the standard error (the delta method)."""
        value = exponential(self.mean)
        return Estimate(value, None if self.se is None else value * self.se)


def mean_and_error(values: NDArray[Any]) -> Estimate:
    """Returns the mean of [n] values; its standard error takes them as independent."""
    n = len(values)
    se = float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return Estimate(float(values.mean()), se)


def exponential(x: float) -> float:
    """Returns e to the x, infinite where that is more than a float holds."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def log_probabilities(logits: NDArray[np.floating], *, whose: str = "the model") -> Floats:
    """Returns the logarithm of the softmax of each row: float64 [n, vocab_size], in nats.

    Raises EdgeqwenError if a logit is infinite or NaN; ``whose`` are the logits, says its message.
    """
    if not np.isfinite(logits).all():
        raise EdgeqwenError(
            f"{whose}'s logits are no numbers: some are infinite or NaN; the model file is "
            "damaged, or its numbers overflow"
        )
    result = np.empty(logits.shape)
    # Row by row, for a row of 150,000 doubles stays in the processor's cache.
    for row, log_p in zip(logits, result, strict=True):
        np.subtract(row, row.max(), out=log_p, dtype=np.float64)
        log_p -= np.log(np.exp(log_p).sum())
    return result


def kl_divergence(log_p: Floats, log_q: Floats) -> Floats:
    """Returns the KL divergence of q from p of each row, sum of p (log p - log q): float64 [n].

    ``log_p``, ``log_q``: float64 [n, vocab_size], in nats.
    """
    divergence = [(np.exp(p) * (p - q)).sum() for p, q in zip(log_p, log_q, strict=True)]
    # Of two distributions that are nearly the same, rounding may leave a hair less than nothing.
    return np.maximum(divergence, 0.0)
