"""Perplexity: by hand, against a plain loop over windows, cancelled, and of senseless arguments."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import edgeqwen
from edgeqwen.errors import ClosedError, EdgeqwenError, OptionError
from edgeqwen.perplexity import Perplexity, perplexity
from tests.engines import F32_CACHE, random_tokens, write_model
from tests.fakes import VOCAB_SIZE, fake_model
from tests.oracles.distributions import log_softmax


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[edgeqwen.Model]:
    path = write_model(tmp_path_factory.mktemp("perplexity") / "tiny.gguf", n_layers=1, **F32_CACHE)
    with edgeqwen.load(path, n_threads=1, max_context=600, cache_type="f32") as model:
        yield model


def plain_nll(model: edgeqwen.Model, ids: list[int], context: int, stride: int) -> dict[int, float]:
    """Returns each scored token's negative log likelihood by its place, the slow and plain way."""
    found: dict[int, float] = {}
    for begin in range(0, len(ids), stride):
        window = ids[begin : begin + context]
        log_p = log_softmax(model.logits(window))
        for i in range(1, len(window)):
            found.setdefault(begin + i, -log_p[i - 1, window[i]])
        if begin + context >= len(ids):
            break
    return found


@pytest.mark.parametrize(
    ("n", "context", "stride"),
    [
        (300, 100, 50),
        (301, 100, 30),
        (100, 40, 1),
        (100, 33, 33),  # the first token of each window has nothing before it
        (99, 33, 33),
        (67, 33, 33),  # a last window of a single token
        (64, 64, 32),
        (65, 64, 32),
        (40, 512, 256),
        (400, 350, 20),  # more than a prefill step before what is scored
        (2, 2, 1),
        (9, 2, 2),
    ],
)
def test_agrees_with_a_plain_loop(model: edgeqwen.Model, n: int, context: int, stride: int) -> None:
    ids = random_tokens(n)
    expected = plain_nll(model, ids, context, stride)
    found = perplexity(model, ids, context=context, stride=stride)
    values = np.array([*expected.values()])
    assert (found.n_tokens, found.n_scored) == (n, len(expected))
    assert found.mean_nll == pytest.approx(values.mean(), rel=1e-5)
    if len(values) > 1:
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert found.mean_nll_se == pytest.approx(error, rel=1e-4)
    assert (found.context, found.stride) == (context, stride)
    assert found.read_tps == found.n_read / found.elapsed_s > 0


def test_overlapping_windows_score_every_token_but_the_first(model: edgeqwen.Model) -> None:
    found = perplexity(model, random_tokens(200), context=64, stride=16)
    assert (found.n_scored, found.n_windows) == (199, 10)
    # Nine windows of 64 and one of the last 56; none needs to read its last token.
    assert found.n_read == 9 * 63 + 55


def test_by_hand() -> None:
    # The fake model gives the token before a logit of 1, and all others 0.
    model, engine = fake_model()
    found = perplexity(model, [1, 1, 2, 2, 2])
    miss = math.log(math.e + VOCAB_SIZE - 1)
    assert found.mean_nll == pytest.approx(miss - 3 / 4, rel=1e-12)
    assert found.mean_nll_se == pytest.approx(0.25, rel=1e-12)
    assert found.perplexity == pytest.approx(math.exp(miss - 3 / 4), rel=1e-12)
    assert found.perplexity_se == pytest.approx(found.perplexity / 4, rel=1e-12)
    assert (found.n_scored, found.n_windows, found.n_read) == (4, 1, 4)
    assert all(sequence.closed for sequence in engine.sequences)


def test_two_tokens_have_no_standard_error() -> None:
    found = perplexity(fake_model()[0], [5, 5])
    assert found.n_scored == 1
    assert (found.mean_nll_se, found.perplexity_se) == (None, None)


def test_the_window_is_512_or_the_model_s_context() -> None:
    for max_context, expected in ((1000, (512, 256)), (77, (77, 38))):
        found = perplexity(fake_model(max_context=max_context)[0], [1] * 600)
        assert (found.context, found.stride) == expected


def test_a_perplexity_beyond_all_floats_is_infinite() -> None:
    found = Perplexity(9, 8, 1, 8, 512, 256, mean_nll=1e3, mean_nll_se=1.0, elapsed_s=1.0)
    assert found.perplexity == found.perplexity_se == math.inf


def test_logits_come_in_parts_of_bounded_size(model: edgeqwen.Model) -> None:
    ids = random_tokens(400)
    expected = model.logits(ids)
    for first in (0, 1, 300, 399):
        parts = list(model.logits_in_parts(ids, first=first))
        assert max(len(part) for part in parts) <= 32
        assert {part.dtype for part in parts} == {np.dtype(np.float32)}
        np.testing.assert_allclose(np.concatenate(parts), expected[first:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("first", [-1, 3])
def test_a_first_row_that_is_none(first: int) -> None:
    model, engine = fake_model()
    with pytest.raises(OptionError, match=f"first is {first}: expected a row from 0 to 2"):
        model.logits_in_parts([1, 2, 3], first=first)
    assert not engine.sequences


def test_progress_counts_scored_tokens() -> None:
    model, _ = fake_model()
    seen: list[tuple[int, int]] = []
    perplexity(model, [1] * 100, context=40, progress=lambda *counts: seen.append(counts))
    assert [done for done, _ in seen] == [32, 39, 59, 79, 99]
    assert {total for _, total in seen} == {99}


def test_tells_the_perplexity_so_far() -> None:
    model, _ = fake_model()
    # The first 32 tokens after the first are those before them, of the other 7 none is.
    tokens = [1] * 33 + [1 + i % 2 for i in range(1, 8)]
    told: list[float | int] = []
    found = perplexity(
        model, tokens, progress=lambda done, _: told.append(done), running=told.append
    )
    miss = math.log(math.e + VOCAB_SIZE - 1)
    # The value comes before the count, so that whoever shows both shows those of one moment.
    assert told == [pytest.approx(math.exp(miss - 1)), 32, pytest.approx(found.perplexity), 39]
    assert found.mean_nll == pytest.approx(miss - 32 / 39)


def test_an_infinite_perplexity_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    model, engine = fake_model()
    logits = np.zeros((1, VOCAB_SIZE), np.float32)
    logits[0, 2] = 1e4
    monkeypatch.setattr(engine, "logits", lambda *_: logits)
    told: list[float] = []
    assert perplexity(model, [1, 1], running=told.append).perplexity == math.inf
    assert told == [math.inf]


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_cancelled_it_tells_of_what_was_scored(after: int) -> None:
    model, engine = fake_model()
    seen = [0]
    found = perplexity(
        model,
        [1, 1] * 100,
        context=80,
        progress=lambda done, _: seen.append(done),
        cancelled=lambda: len(seen) > after,
    )
    assert found.n_scored == seen[-1] == [32, 32, 64, 79][after]
    assert found.n_read == found.n_scored
    assert found.mean_nll == pytest.approx(math.log(math.e + VOCAB_SIZE - 1) - 1)
    assert all(sequence.closed for sequence in engine.sequences)


def test_cancelled_while_a_window_is_read_it_scores_nothing_of_it() -> None:
    model, engine = fake_model()
    prefills: list[Any] = engine.prefilled
    found = perplexity(model, [1] * 100, context=40, stride=10, cancelled=lambda: bool(prefills))
    assert (found.n_scored, found.n_read, found.n_windows, len(prefills)) == (39, 39, 1, 1)
    assert all(sequence.closed for sequence in engine.sequences)


def test_cancelled_before_the_first_row_there_are_none() -> None:
    model, engine = fake_model()
    # Only once, in the middle of the step: what the step left out must be noticed all the same.
    answers = iter([True])
    rows = model.logits_in_parts([1] * 40, first=30, cancelled=lambda: next(answers, False))
    assert list(rows) == []
    assert [(sequence.n_tokens, sequence.closed) for sequence in engine.sequences] == [(15, True)]


def test_an_error_in_the_middle_frees_the_cache() -> None:
    model, engine = fake_model()

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perplexity(model, [1] * 100, progress=fail)
    assert [sequence.closed for sequence in engine.sequences] == [True]
    with pytest.raises(ClosedError, match=r"fake\.gguf was closed"):
        perplexity(model, [1] * 100, progress=lambda done, total: model.close())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, engine = fake_model()
    logits = np.zeros((3, VOCAB_SIZE), np.float32)
    logits[2, 7] = bad
    monkeypatch.setattr(engine, "logits", lambda *_: logits)
    with pytest.raises(EdgeqwenError, match="the model's logits are no numbers: some are infinite"):
        perplexity(model, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([], {}, "the text is too short: tokens has length 0, expected at least 2"),
        ([1], {}, "the text is too short: tokens has length 1, expected at least 2"),
        (iter([5]), {}, "the text is too short: tokens has length 1, expected at least 2"),
        ("text", {}, "tokens is of type str: "),
        (None, {}, "tokens is None: expected a sequence of token ids"),
        ([1, VOCAB_SIZE], {}, r"tokens\[1\] is 260: "),
        ([1, 2], {"context": 1}, "the window has 1 tokens: expected 2 to 50, the model's context"),
        ([1, 2], {"context": 51}, "the window has 51 tokens: expected 2 to 50"),
        ([1, 2], {"context": 0}, "context is 0: expected a whole number of at least 1"),
        ([1, 2], {"stride": 0}, "stride is 0: expected a whole number of at least 1"),
        ([1, 2], {"context": 9, "stride": 10}, "stride is 10: expected 1 to 9, the window; "),
    ],
)
def test_senseless_arguments(tokens: Any, options: dict[str, int], message: str) -> None:
    model, engine = fake_model(max_context=50)
    with pytest.raises(OptionError, match=message):
        perplexity(model, tokens, **options)
    assert not engine.sequences
