"""The sampler against its plain twin, and what it promises about seeds, ties and broken logits."""

import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.errors import EdgeqwenError, OptionError
from edgeqwen.sampling import Sampler, SamplingOptions
from tests.oracles import sampling as twin

VOCAB = 700
OFF = SamplingOptions(1.0, 0, 1.0, 0.0, 1.0)


def logits_of(seed: int, scale: float = 3.0, n: int = VOCAB) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


options_strategy = st.builds(
    SamplingOptions,
    temperature=st.sampled_from([0, 1e-6, 1.0]) | st.floats(0.05, 5),
    top_k=st.sampled_from([0, 1, 20, 512, 513, VOCAB, 10**9]) | st.integers(0, VOCAB),
    top_p=st.sampled_from([1.0, 0.5, 1e-9]) | st.floats(0.01, 1),
    min_p=st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    repetition_penalty=st.sampled_from([1.0, 1.05]) | st.floats(0.5, 2),
    presence_penalty=st.sampled_from([0.0]) | st.floats(-2, 2),
    frequency_penalty=st.sampled_from([0.0]) | st.floats(-2, 2),
    seed=st.integers(0, 2**64 - 1),
)


@settings(deadline=None, max_examples=150)
@given(
    options=options_strategy,
    seed=st.integers(0, 100),
    scale=st.sampled_from([0.0, 0.01, 1.0, 5.0, 1e30]),
    coarse=st.booleans(),
    prompt=st.lists(st.integers(0, VOCAB - 1), max_size=300),
    n_steps=st.integers(1, 5),
)
def test_same_as_the_twin(
    options: SamplingOptions,
    seed: int,
    scale: float,
    coarse: bool,
    prompt: list[int],
    n_steps: int,
) -> None:
    sampler = Sampler(options, VOCAB, prompt=prompt)
    draws = np.random.PCG64(options.seed)
    answer: list[int] = []
    for step in range(n_steps):
        logits = logits_of(seed + step, scale)
        if coarse:
            # Many equal logits.
            logits = np.round(logits)
        before = logits.copy()
        expected = twin.distribution(logits, options, prompt, answer)
        ids, probabilities = sampler.distribution(logits)
        assert ids.tolist() == sorted(expected)
        assert probabilities.tolist() == [expected[id] for id in sorted(expected)]
        token = sampler.sample(logits)
        if len(expected) > 1:
            uniform = (draws.random_raw() >> 11) * 2.0**-53
            drawn = twin.draw(expected, uniform)
            # Where the draw falls between two tokens, to the last digits, either is right.
            assert token == drawn or abs(_share_up_to(expected, min(token, drawn)) - uniform) < 1e-9
        else:
            assert token in expected
        answer.append(token)
        assert np.array_equal(before, logits)


def _share_up_to(probabilities: dict[int, float], token: int) -> float:
    return sum(share for id, share in probabilities.items() if id <= token)


@pytest.mark.parametrize(
    "options",
    [
        OFF,
        OFF.replace(temperature=2.0, top_k=8),
        OFF.replace(top_p=0.7),
        OFF.replace(min_p=0.2, temperature=0.5),
    ],
)
def test_draws_follow_the_distribution(options: SamplingOptions) -> None:
    logits = logits_of(7, 1.0, 40)
    expected = twin.distribution(logits, options)
    sampler = Sampler(options.replace(seed=12345), 40)
    n = 4_000
    counts = Counter(sampler.sample(logits) for _ in range(n))
    assert set(counts) <= set(expected)
    chi_square = sum((counts[id] - n * p) ** 2 / (n * p) for id, p in expected.items())
    freedom = len(expected) - 1
    # Far beyond what chance does (six standard deviations); the seed is fixed, so this is no
    # test of luck.
    assert chi_square < freedom + 6 * np.sqrt(2 * freedom)


def test_same_seed_same_tokens() -> None:
    def tokens(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingOptions(seed=seed, temperature=2.0), VOCAB)
        return [sampler.sample(logits_of(i)) for i in range(20)]

    assert tokens(5) == tokens(5)
    assert tokens(5) != tokens(6)
    # These must never change: people write seeds down.
    assert tokens(5)[:8] == [424, 524, 429, 109, 15, 309, 318, 49]


def test_without_a_seed_each_sampler_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sampler(SamplingOptions(), VOCAB).seed != Sampler(SamplingOptions(), VOCAB).seed
    monkeypatch.setattr(os, "urandom", lambda n: (7).to_bytes(n))
    assert Sampler(SamplingOptions(), VOCAB).seed == 7


def test_ties_go_to_the_lowest_id() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[[600, 3, 77]] = 5
    greedy = Sampler(OFF.replace(temperature=0), VOCAB)
    assert greedy.sample(logits) == 3
    assert Sampler(OFF.replace(top_k=2), VOCAB).distribution(logits)[0].tolist() == [3, 77]
    assert Sampler(OFF.replace(top_k=5), VOCAB).distribution(logits)[0].tolist() == [
        *(0, 1, 3, 77, 600)
    ]


def test_greedy_minds_the_penalties() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[10], logits[20] = 4, 3
    options = OFF.replace(temperature=0, frequency_penalty=0.6)
    sampler = Sampler(options, VOCAB)
    assert [sampler.sample(logits) for _ in range(4)] == [10, 10, 20, 10]


def test_repetition_counts_the_prompt_and_the_others_do_not() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[10], logits[20], logits[30] = 4, 3.9, -4
    greedy = OFF.replace(temperature=0)
    assert Sampler(greedy.replace(repetition_penalty=1.1), VOCAB, prompt=[10]).sample(logits) == 20
    for name in ("presence_penalty", "frequency_penalty"):
        sampler = Sampler(greedy.replace(**{name: 2.0}), VOCAB, prompt=[10, 10])
        assert [sampler.sample(logits), sampler.sample(logits)] == [10, 20]


@pytest.mark.parametrize(("logit", "other"), [(0.5, 0.25), (3.0, 1.5), (-1.0, -2.0), (0.0, 0.0)])
def test_repetition_penalty_lowers_logits_of_either_sign(logit: float, other: float) -> None:
    logits = np.array([other, logit], np.float32)
    for top_k in (0, 2):
        sampler = Sampler(OFF.replace(repetition_penalty=2.0, top_k=top_k), 2, prompt=[1])
        assert sampler.distribution(logits)[1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("top_k", [20, 0, 600])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_broken_logits(top_k: int, bad: float) -> None:
    logits = logits_of(1)
    logits[[123, 456]] = bad
    sampler = Sampler(SamplingOptions(top_k=top_k), VOCAB, prompt=[123])
    with pytest.raises(EdgeqwenError) as error:
        sampler.sample(logits)
    assert str(error.value) == (
        f"the model's logits are no numbers: logit 123 is {bad}, and 2 of {VOCAB} are infinite or "
        "NaN; the model file is damaged, or its numbers overflow"
    )


@pytest.mark.parametrize(
    ("logits", "found"),
    [
        (np.zeros(5, np.float32), r"float32 \[5\]"),
        (np.zeros(VOCAB), rf"float64 \[{VOCAB}\]"),
        (np.zeros((1, VOCAB), np.float32), rf"float32 \[1, {VOCAB}\]"),
    ],
)
def test_other_logits(logits: np.ndarray, found: str) -> None:
    with pytest.raises(OptionError, match=rf"logits are {found}: expected float32 \[{VOCAB}\]"):
        Sampler(SamplingOptions(), VOCAB).sample(logits)


@pytest.mark.parametrize("bad", [-1, VOCAB])
def test_prompt_outside_of_the_vocabulary(bad: int) -> None:
    with pytest.raises(OptionError) as error:
        Sampler(SamplingOptions(), VOCAB, prompt=[3, bad, 5])
    assert str(error.value) == (f"prompt holds token {bad}: expected ids from 0 to {VOCAB - 1}")


def test_strided_and_read_only_logits() -> None:
    wide = np.zeros((VOCAB, 2), np.float32)
    wide[:, 0] = logits_of(3)
    expected = Sampler(SamplingOptions(), VOCAB).distribution(logits_of(3))[0].tolist()
    assert Sampler(SamplingOptions(), VOCAB).distribution(wide[:, 0])[0].tolist() == expected
    frozen = logits_of(3)
    frozen.flags.writeable = False
    assert Sampler(SamplingOptions(), VOCAB).distribution(frozen)[0].tolist() == expected


def test_many_different_tokens_are_remembered() -> None:
    sampler = Sampler(OFF.replace(temperature=0, presence_penalty=2.0), VOCAB)
    logits = -np.arange(VOCAB, dtype=np.float32) * 2.0**-10
    assert [sampler.sample(logits) for _ in range(VOCAB)] == list(range(VOCAB))
