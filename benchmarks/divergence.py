"""How far one model's predictions are from another's: KL divergence, likelihood, first choices."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen import Model

WINDOW = 512
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Divergence:
    """A model against a reference, over the positions of a text; ``_se`` are standard errors.

    ``kl``: mean KL divergence from the reference, in nats. ``nll_change``: by how much the text's
    own tokens are less likely, in nats per token; it is the logarithm of the ratio of the two
    perplexities. ``top1_agreement``: share of positions with the same likeliest token.
    """

    n_positions: int
    kl: float
    kl_se: float
    nll_change: float
    nll_change_se: float
    top1_agreement: float

    def figures(self) -> dict[str, float]:
        """Returns the fields by name."""
        return asdict(self)


def divergences(
    models: Sequence[Model],
    reference: Model,
    tokens: Sequence[int],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Divergence]:
    """Returns the divergence of each model from the reference.

    ``tokens``: the text, at least 3 tokens, read in windows of 512 that don't overlap; every token
    but the first is predicted once. All models read a window before the next one begins, so that
    only one window's logits are in memory. ``progress(done, total)`` counts positions.
    """
    n = len(tokens) - 1
    ids = np.array(tokens)
    kl, change = np.empty((len(models), n)), np.empty((len(models), n))
    agrees = np.empty((len(models), n), bool)
    for begin in range(0, n, WINDOW):
        here = slice(begin, min(begin + WINDOW, n))
        window, targets = ids[here].tolist(), ids[begin + 1 : here.stop + 1]
        rows = np.arange(len(targets))
        expected = log_probabilities(reference.logits(window))
        for i, model in enumerate(models):
            found = log_probabilities(model.logits(window))
            kl[i, here] = kl_divergence(expected, found)
            change[i, here] = expected[rows, targets] - found[rows, targets]
            agrees[i, here] = expected.argmax(axis=1) == found.argmax(axis=1)
        progress(here.stop, n)
    return [
        Divergence(n, *_mean(kl[i]), *_mean(change[i]), float(agrees[i].mean()))
        for i in range(len(models))
    ]


def log_probabilities(logits: NDArray[np.floating]) -> Floats:
    """Returns float64 [n, vocab_size], the logarithm of the softmax of each row."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def kl_divergence(expected: Floats, found: Floats) -> Floats:
    """Returns float64 [n], sum of p (log p - log q) of each row, in nats.

    ``expected``: log p, ``found``: log q, float64 [n, vocab_size].
    """
    divergence: Floats = (np.exp(expected) * (expected - found)).sum(axis=1)
    return divergence


def _mean(values: Floats) -> tuple[float, float]:
    """Returns the mean and its standard error, which takes the positions as independent."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
