"""Log probabilities, KL divergence and means with standard errors, by hand and against twins."""

import math

import numpy as np
import pytest

from edgeqwen.errors import EdgeqwenError
from edgeqwen.likelihood import (
    Estimate,
    exponential,
    kl_divergence,
    log_probabilities,
    mean_and_error,
)
from tests.oracles import distributions


def test_log_probabilities_of_large_logits() -> None:
    found = log_probabilities(np.array([[1e4, 1e4 + math.log(3)]]))
    assert np.exp(found) == pytest.approx(np.array([[0.25, 0.75]]))


def test_logits_as_far_apart_as_float32_allows() -> None:
    # Their difference is more than a float32 holds.
    found = log_probabilities(np.array([[3e38, -3e38]], np.float32))
    assert found[0, 0] == 0
    assert found[0, 1] == pytest.approx(-6e38)


def test_agrees_with_the_twins_in_numpy() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 5, (2, 7, 1000)).astype(np.float32)
    log_p, log_q = log_probabilities(a), log_probabilities(b)
    assert log_p.dtype == np.float64
    np.testing.assert_allclose(log_p, distributions.log_softmax(a), rtol=0, atol=1e-13)
    found = kl_divergence(log_p, log_q)
    np.testing.assert_allclose(found, distributions.kl_divergence(a, b), rtol=1e-12)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_logits_must_be_numbers(wrong: float) -> None:
    logits = np.array([[1.0, 2.0], [1.0, wrong]])
    with pytest.raises(EdgeqwenError, match=r"^the model's logits are no numbers: some are infini"):
        log_probabilities(logits)
    with pytest.raises(EdgeqwenError, match=r"^b\.gguf's logits are no numbers"):
        log_probabilities(logits, whose="b.gguf")


def test_kl_divergence_by_hand() -> None:
    p = np.log([[0.5, 0.5], [0.25, 0.75]])
    q = np.log([[0.75, 0.25], [0.25, 0.75]])
    by_hand = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    found = kl_divergence(p, q)
    assert found == pytest.approx([by_hand, 0.0])
    assert found[1] == 0


def test_kl_divergence_is_never_negative() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(0, 3, (200, 50))
    # So near to each other that only rounding is left.
    found = kl_divergence(log_probabilities(a), log_probabilities(a * (1 + 1e-15)))
    assert found.min() >= 0
    assert found.max() < 1e-13


def test_mean_and_error() -> None:
    assert mean_and_error(np.array([1.0, 2.0, 6.0])) == pytest.approx((3.0, math.sqrt(7 / 3)))
    assert mean_and_error(np.array([4.0])) == (4.0, None)
    # Of shares, it is the binomial one.
    share, error = mean_and_error(np.array([True, True, True, False]))
    assert (share, error) == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 3)))


def test_exp_of_an_estimate() -> None:
    assert Estimate(math.log(2), 0.25).exp() == pytest.approx((2.0, 0.5))
    assert Estimate(math.log(2), None).exp() == (pytest.approx(2.0), None)
    assert Estimate(1e3, 1.0).exp() == (math.inf, math.inf)
    assert exponential(-1e3) == 0
