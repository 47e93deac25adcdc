"""What a sampler says that it wants: with these logits alone, it chooses the same tokens."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.kernels.coarse import LOWEST
from edgeqwen.sampling import Sampler, SamplingOptions
from tests.oracles.screen import worth

VOCAB = 700
PLAIN: dict[str, Any] = {"repetition_penalty": 1.0}


@settings(deadline=None, max_examples=200)
@given(
    options=st.builds(
        SamplingOptions,
        temperature=st.sampled_from([0, 1.0]) | st.floats(0.05, 5),
        top_k=st.integers(1, 150),
        top_p=st.sampled_from([1.0]) | st.floats(0.01, 1),
        min_p=st.sampled_from([0.0]) | st.floats(0, 1),
        repetition_penalty=st.sampled_from([1.0, 1.05]) | st.floats(1, 3),
        presence_penalty=st.sampled_from([0.0]) | st.floats(0, 2),
        frequency_penalty=st.sampled_from([0.0]) | st.floats(0, 2),
        seed=st.integers(0, 100),
    ),
    shift=st.sampled_from([0.0, -20.0, 20.0]),
    coarse=st.booleans(),
    prompt=st.lists(st.integers(0, VOCAB - 1), max_size=300),
)
def test_what_is_wanted_suffices(
    options: SamplingOptions, shift: float, coarse: bool, prompt: list[int]
) -> None:
    full, screened = (Sampler(options, VOCAB, prompt=prompt) for _ in range(2))
    rng = np.random.default_rng(len(prompt))
    for _ in range(4):
        logits = (rng.standard_normal(VOCAB) * 3 + shift).astype(np.float32)
        if coarse:
            logits = np.round(logits)
        wanted = screened.wanted
        assert wanted is not None
        assert wanted.k == (1 if options.temperature == 0 else options.top_k)
        values = worth(logits, wanted.penalised != 0, wanted.repetition, wanted.subtracted)
        threshold = np.sort(values)[-wanted.k]
        some = np.where(logits < threshold, np.float32(LOWEST), logits)
        expected, found = full.distribution(logits), screened.distribution(some)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        assert screened.sample(some) == full.sample(logits)


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 0, **PLAIN},
        {"repetition_penalty": 0.9},
        {"presence_penalty": -0.1, **PLAIN},
        {"frequency_penalty": -0.1, **PLAIN},
    ],
    ids=str,
)
def test_all_logits_are_wanted(options: dict[str, Any]) -> None:
    """No k, or penalties that make logits larger: any of them may come up."""
    assert Sampler(SamplingOptions(**options), VOCAB, prompt=[1, 2]).wanted is None


def test_one_is_wanted_at_temperature_0_whatever_top_k_is() -> None:
    wanted = Sampler(SamplingOptions(temperature=0, top_k=0), VOCAB).wanted
    assert wanted is not None
    assert wanted.k == 1


def test_penalties_are_told() -> None:
    options = SamplingOptions(
        repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.25, temperature=0
    )
    sampler = Sampler(options, VOCAB, prompt=[5, 6])
    logits = np.zeros(VOCAB, np.float32)
    logits[9] = 100
    for n in range(4):
        wanted = sampler.wanted
        assert wanted is not None
        assert wanted.repetition == 1.2
        # The token that was chosen n times; of the prompt's, nothing is subtracted.
        assert wanted.subtracted == (0.5 + 0.25 * n if n else 0.5)
        assert np.flatnonzero(wanted.penalised).tolist() == ([5, 6, 9] if n else [5, 6])
        assert sampler.sample(logits) == 9


def test_without_penalties_nothing_is_subtracted() -> None:
    wanted = Sampler(SamplingOptions(**PLAIN), VOCAB, prompt=[5]).wanted
    assert wanted is not None
    assert (wanted.repetition, wanted.subtracted, wanted.penalised.any()) == (1.0, 0.0, False)
