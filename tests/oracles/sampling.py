"""The sampler chain in plain numpy: everything over the whole vocabulary, with full sorts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgeqwen.sampling import SamplingOptions


def penalised(
    logits: np.ndarray, options: SamplingOptions, prompt: Sequence[int], answer: Sequence[int]
) -> np.ndarray:
    """Returns float64 [vocab_size]: the logits after the penalties."""
    values = logits.astype(np.float64)
    for token in {*prompt, *answer}:
        if values[token] > 0:
            values[token] /= options.repetition_penalty
        else:
            values[token] *= options.repetition_penalty
    for token, count in Counter(answer).items():
        values[token] -= options.presence_penalty + options.frequency_penalty * count
    return values


def distribution(
    logits: np.ndarray,
    options: SamplingOptions,
    prompt: Sequence[int] = (),
    answer: Sequence[int] = (),
) -> dict[int, float]:
    """Returns the probabilities of the tokens that may come next, by id."""
    values = penalised(logits, options, prompt, answer)
    # The likeliest first, of equals the lowest id: the sort is stable.
    ids = np.argsort(-values, kind="stable")
    if options.temperature == 0:
        return {int(ids[0]): 1.0}
    if options.top_k:
        ids = ids[: options.top_k]
    weights = np.exp((values[ids] - values[ids[0]]) / options.temperature)
    if options.top_p < 1:
        # The sum runs in the order of the ids, as in the chain: the last digit decides ties.
        total = weights[np.argsort(ids)].sum()
        before = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
        kept = before < options.top_p * total
        ids, weights = ids[kept], weights[kept]
    if options.min_p:
        kept = weights >= options.min_p
        ids, weights = ids[kept], weights[kept]
    total = weights[np.argsort(ids)].sum()
    return {int(id): float(weight / total) for id, weight in zip(ids, weights, strict=True)}


def draw(probabilities: dict[int, float], uniform: float) -> int:
    """Returns the token at ``uniform`` (0 to 1) of the probabilities, in the order of the ids."""
    total = 0.0
    for id in sorted(probabilities):
        total += probabilities[id]
        if uniform < total:
            return id
    return max(probabilities)
