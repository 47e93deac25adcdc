"""How far models' predictions are from a reference's: KL divergence, likelihood, first choices."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen import Model
from edgeqwen.errors import EdgeqwenError
from edgeqwen.perplexity import CONTEXT, windows

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """A model against a reference: arrays [n], a value for every predicted token of a text.

    ``nll``: the model's negative log likelihood of the token, in nats. ``nll_change``: that less
    the reference's; its mean is the logarithm of the ratio of the two perplexities. ``kl``: the KL
    divergence from the reference, in nats. ``same_choice``: whether both find the same token
    likeliest.
    """

    nll: Floats
    nll_change: Floats
    kl: Floats
    same_choice: NDArray[np.bool_]

    def figures(self) -> dict[str, float]:
        """Returns means by name and, with ``_se``, their standard errors."""
        nll, nll_se = mean_and_error(self.nll)
        kl, kl_se = mean_and_error(self.kl)
        change, change_se = mean_and_error(self.nll_change)
        return {
            "n_positions": len(self.nll),
            "kl": kl,
            "kl_se": kl_se,
            "nll_change": change,
            "nll_change_se": change_se,
            "top1_agreement": float(self.same_choice.mean()),
            "perplexity": math.exp(nll),
            "perplexity_se": math.exp(nll) * nll_se,
        }


def differences(a: Divergence, b: Divergence) -> dict[str, float]:
    """Returns the means of a - b and their standard errors, for ``kl`` and ``nll``.

    Both read the same text, so most of what varies from token to token cancels: these errors are
    far below those of two texts.
    """
    kl, kl_se = mean_and_error(a.kl - b.kl)
    nll, nll_se = mean_and_error(a.nll - b.nll)
    return {
        "kl_difference": kl,
        "kl_difference_se": kl_se,
        "nll_difference": nll,
        "nll_difference_se": nll_se,
    }


def divergences(
    models: Sequence[Model],
    reference: Model,
    tokens: Sequence[int],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Divergence]:
    """Returns the divergence of each model from the reference.

    ``tokens``: the text, at least 3 tokens. It is read as ``edgeqwen.perplexity`` reads it, in
    windows of 512 that overlap by half; every token but the first is predicted once. All models
    read a window before the next one begins, so that only one window's logits are in memory.
    ``progress(done, total)`` counts predicted tokens. Raises EdgeqwenError if a logit is infinite
    or NaN.
    """
    ids = np.array(tokens)
    n = len(ids) - 1
    shape = (len(models), n)
    nll, change, kl = np.empty(shape), np.empty(shape), np.empty(shape)
    same = np.empty(shape, bool)
    context = min(CONTEXT, reference.engine.max_context)
    for begin, first, end in windows(len(ids), context, context // 2):
        # What a window's last token predicts lies beyond it.
        window, skipped = ids[begin : end - 1].tolist(), first - 1 - begin
        targets, here = ids[first:end], slice(first - 1, end - 1)
        rows = np.arange(len(targets))
        expected = _predictions(reference, window, skipped)
        for i, model in enumerate(models):
            found = _predictions(model, window, skipped)
            nll[i, here] = -found[rows, targets]
            change[i, here] = expected[rows, targets] - found[rows, targets]
            kl[i, here] = kl_divergence(expected, found)
            same[i, here] = expected.argmax(axis=1) == found.argmax(axis=1)
        progress(end - 1, n)
    return [Divergence(*arrays) for arrays in zip(nll, change, kl, same, strict=True)]


def _predictions(model: Model, tokens: Sequence[int], first: int) -> Floats:
    """Returns the log probabilities after each of ``tokens[first:]``."""
    return log_probabilities(np.concatenate([*model.logits_in_parts(tokens, first=first)]))


def log_probabilities(logits: NDArray[np.floating]) -> Floats:
    """Returns float64 [n, vocab_size], the logarithm of the softmax of each row."""
    if not np.isfinite(logits).all():
        raise EdgeqwenError("the model's logits are no numbers: some are infinite or NaN")
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


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Returns the mean and its standard error, which takes the values as independent."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
