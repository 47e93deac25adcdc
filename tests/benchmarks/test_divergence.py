"""KL divergence and what else is told of two models' predictions."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import divergence
from benchmarks.divergence import divergences, kl_divergence, log_probabilities


def model(rows: dict[int, list[float]], reads: list[list[int]] | None = None) -> Any:
    """Returns a model that predicts from the last token alone: its probabilities for the next."""

    def logits(tokens: list[int]) -> np.ndarray:
        if reads is not None:
            reads.append(list(tokens))
        # Softmax doesn't look at what is added to all logits.
        return np.log(np.array([rows[token] for token in tokens], np.float32)) + 7

    return SimpleNamespace(logits=logits)


def test_kl_divergence_by_hand() -> None:
    p = np.log([[0.5, 0.5], [0.25, 0.75]])
    q = np.log([[0.75, 0.25], [0.25, 0.75]])
    by_hand = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kl_divergence(p, q) == pytest.approx([by_hand, 0.0])


def test_log_probabilities_of_large_logits() -> None:
    found = log_probabilities(np.array([[1e4, 1e4 + math.log(3)]]))
    assert np.exp(found) == pytest.approx(np.array([[0.25, 0.75]]))
    assert log_probabilities(np.zeros((1, 2), np.float32)).dtype == np.float64


def test_a_text_by_hand() -> None:
    reference = model({0: [0.5, 0.5], 1: [0.2, 0.8]})
    other = model({0: [0.75, 0.25], 1: [0.2, 0.8]})
    same, found = divergences([reference, other], reference, [0, 1, 0, 0])
    assert (same.kl, same.kl_se, same.nll_change, same.top1_agreement) == (0, 0, 0, 1)
    # Predicted are 1 after 0, 0 after 1, and 0 after 0.
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    changes = [math.log(0.5 / 0.25), 0.0, math.log(0.5 / 0.75)]
    assert found.n_positions == 3
    assert found.kl == pytest.approx(kl * 2 / 3, rel=1e-6)
    assert found.kl_se == pytest.approx(np.std([kl, 0, kl], ddof=1) / math.sqrt(3), rel=1e-6)
    assert found.nll_change == pytest.approx(sum(changes) / 3, abs=1e-6)
    assert found.nll_change_se == pytest.approx(np.std(changes, ddof=1) / math.sqrt(3), rel=1e-6)


def test_first_choices_are_compared() -> None:
    reference = model({0: [0.6, 0.4], 1: [0.2, 0.8]})
    other = model({0: [0.4, 0.6], 1: [0.1, 0.9]})
    (found,) = divergences([other], reference, [0, 1, 1, 0, 0])
    assert found.top1_agreement == 0.5


def test_every_token_is_predicted_once_window_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "WINDOW", 2)
    reads: list[list[int]] = []
    steps = []
    one = model({0: [0.5, 0.5], 1: [0.2, 0.8]}, reads)
    (found,) = divergences(
        [one], one, [0, 1, 1, 0], progress=lambda done, total: steps.append((done, total))
    )
    assert reads == [[0, 1], [0, 1], [1], [1]]  # each window for both, and never the last token
    assert steps == [(2, 3), (3, 3)]
    assert found.n_positions == 3
