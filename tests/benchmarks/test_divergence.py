"""KL divergence and what else is told of two models' predictions."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.divergence import Divergence, differences, divergences
from edgeqwen.errors import EdgeqwenError
from edgeqwen.perplexity import perplexity


def model(
    rows: dict[int, list[float]],
    reads: list[tuple[list[int], int]] | None = None,
    *,
    max_context: int = 1000,
) -> Any:
    """Returns a model that predicts from the last token alone: its probabilities for the next."""

    def logits_in_parts(
        tokens: list[int], *, first: int = 0, cancelled: Any = None
    ) -> Iterator[np.ndarray]:
        if reads is not None:
            reads.append((list(tokens), first))
        for begin in range(first, len(tokens), 2):
            part = tokens[begin : begin + 2]
            # Softmax doesn't look at what is added to all logits.
            yield np.log(np.array([rows[token] for token in part], np.float32)) + 7

    return SimpleNamespace(
        logits_in_parts=logits_in_parts,
        engine=SimpleNamespace(max_context=max_context),
        config=SimpleNamespace(vocab_size=len(rows)),
    )


def test_a_text_by_hand() -> None:
    reference = model({0: [0.5, 0.5], 1: [0.2, 0.8]})
    other = model({0: [0.75, 0.25], 1: [0.2, 0.8]})
    same, divergence = divergences([reference, other], reference, [0, 1, 0, 0])
    none = same.figures()
    assert [none[name] for name in ("kl", "kl_se", "nll_change", "top1_agreement")] == [0, 0, 0, 1]
    # Predicted are 1 after 0, 0 after 1, and 0 after 0.
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    changes = [math.log(0.5 / 0.25), 0.0, math.log(0.5 / 0.75)]
    found = divergence.figures()
    assert found["n_positions"] == 3
    assert found["kl"] == pytest.approx(kl * 2 / 3, rel=1e-6)
    assert found["kl_se"] == pytest.approx(np.std([kl, 0, kl], ddof=1) / math.sqrt(3), rel=1e-6)
    assert found["nll_change"] == pytest.approx(sum(changes) / 3, abs=1e-6)
    error = np.std(changes, ddof=1) / math.sqrt(3)
    assert found["nll_change_se"] == pytest.approx(error, rel=1e-6)
    assert found["perplexity"] == pytest.approx((0.25 * 0.2 * 0.75) ** (-1 / 3), rel=1e-6)


def test_all_models_are_compared_with_the_reference() -> None:
    tables = [{0: [p, 1 - p], 1: [0.2, 0.8]} for p in (0.5, 0.5, 0.75, 0.9)]
    reference, *models = map(model, tables)
    found = divergences(models, reference, [0, 1, 0, 0])
    alone = [divergences([one], reference, [0, 1, 0, 0])[0] for one in models]
    assert [x.figures() for x in found] == [x.figures() for x in alone]
    kl = [x.figures()["kl"] for x in found]
    assert kl == sorted(kl)
    assert kl[0] == 0 < kl[1]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_must_be_numbers(wrong: float) -> None:
    good, bad = model({0: [0.5, 0.5], 1: [0.2, 0.8]}), model({0: [0.5, 0.5], 1: [0.2, wrong]})
    with pytest.raises(EdgeqwenError, match="'s logits are no numbers"):
        divergences([good, bad], good, [0, 1, 0])


def test_first_choices_are_compared() -> None:
    reference = model({0: [0.6, 0.4], 1: [0.2, 0.8]})
    other = model({0: [0.4, 0.6], 1: [0.1, 0.9]})
    (found,) = divergences([other], reference, [0, 1, 1, 0, 0])
    assert found.figures()["top1_agreement"] == 0.5


@pytest.mark.parametrize("n_tokens", [3, 4, 5, 8, 9, 12])
def test_text_is_read_as_perplexity_reads_it(n_tokens: int) -> None:
    reads: list[tuple[list[int], int]] = []
    rows = {0: [0.5, 0.5], 1: [0.2, 0.8]}
    one, other = model(rows, reads, max_context=4), model({0: [0.3, 0.7], 1: [0.2, 0.8]})
    tokens = [i % 3 % 2 for i in range(n_tokens)]
    steps: list[tuple[int, int]] = []
    estimate = perplexity(one, tokens)
    as_perplexity, reads[:] = list(reads), []
    (found,) = divergences([other], one, tokens, progress=lambda *step: steps.append(step))
    assert reads == as_perplexity
    assert steps[-1] == (n_tokens - 1, n_tokens - 1)
    figures = found.figures()
    expected = perplexity(other, tokens)
    assert figures["perplexity"] == pytest.approx(expected.perplexity, rel=1e-12)
    assert figures["perplexity_se"] == pytest.approx(expected.perplexity_se, rel=1e-12)
    # The loss of likelihood is the logarithm of the ratio of the two perplexities.
    ratio = figures["perplexity"] / estimate.perplexity
    assert figures["nll_change"] == pytest.approx(math.log(ratio), abs=1e-12)


def test_differences_are_taken_token_by_token() -> None:
    def read(nll: list[float], kl: list[float]) -> Divergence:
        values = np.array(nll)
        return Divergence(values - 1, values, np.array(kl), np.ones(len(nll), bool))

    # From token to token the two vary much, and alike.
    found = differences(read([1, 5, 9.5], [2, 4, 6]), read([2, 6, 10], [2, 4, 7]))
    assert found == pytest.approx(
        {
            "nll_difference": -2.5 / 3,
            "nll_difference_se": np.std([-1, -1, -0.5], ddof=1) / math.sqrt(3),
            "kl_difference": -1 / 3,
            "kl_difference_se": np.std([0, 0, -1], ddof=1) / math.sqrt(3),
        }
    )
