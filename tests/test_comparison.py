"""Comparing two models: by hand, against plain numpy, cancelled, and of what can't be compared."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeqwen
from edgeqwen.comparison import Comparison, compare
from edgeqwen.errors import EdgeqwenError, OptionError
from edgeqwen.likelihood import Estimate
from edgeqwen.perplexity import perplexity, windows
from tests.engines import random_tokens, write_model
from tests.fakes import VOCAB_SIZE, FakeEngine, fake_model
from tests.oracles.distributions import kl_divergence, log_softmax


def table_model(table: np.ndarray, *, max_context: int = 1000) -> tuple[edgeqwen.Model, FakeEngine]:
    """Returns a model that predicts from the last token alone: a row of the table [n, n]."""
    model, engine = fake_model(max_context=max_context)
    engine.config.vocab_size = len(table)
    step = engine._step

    def logits(sequence: Any, tokens: list[int]) -> np.ndarray:
        step(sequence, tokens)
        return table[list(tokens)]

    engine.logits = logits  # type: ignore[method-assign]
    return model, engine


def random_table(seed: int, n: int = VOCAB_SIZE) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (n, n)).astype(np.float32)


def random_ids(n: int) -> list[int]:
    ids: list[int] = np.random.default_rng(3).integers(0, VOCAB_SIZE, n).tolist()
    return ids


def expected_figures(a: np.ndarray, b: np.ndarray, tokens: list[int]) -> dict[str, Any]:
    """Returns a Comparison's figures from the logits [n, vocab] that predict ``tokens`` [n]."""
    n = len(tokens)
    rows = np.arange(n)
    nll_a, nll_b = (-log_softmax(x)[rows, tokens] for x in (a, b))
    kl = kl_divergence(a, b)
    same = (a.argmax(axis=1) == b.argmax(axis=1)).mean()
    p_change = np.exp(-nll_b) - np.exp(-nll_a)
    rms = math.sqrt((p_change**2).mean())

    def se(values: np.ndarray) -> float:
        return float(np.std(values, ddof=1)) / math.sqrt(n)

    return {
        "n_scored": n,
        "nll_a": (nll_a.mean(), se(nll_a)),
        "nll_b": (nll_b.mean(), se(nll_b)),
        "nll_change": (nll_b.mean() - nll_a.mean(), se(nll_b - nll_a)),
        "nll_correlation": np.corrcoef(nll_a, nll_b)[0, 1],
        "kl": (kl.mean(), se(kl)),
        "kl_median": np.median(kl),
        "kl_p90": np.percentile(kl, 90),
        "kl_p99": np.percentile(kl, 99),
        "kl_p99_9": np.percentile(kl, 99.9),
        "kl_max": kl.max(),
        "same_top": (same, math.sqrt(same * (1 - same) / (n - 1))),
        "p_change": (p_change.mean(), se(p_change)),
        "p_change_rms": (rms, se(p_change**2) / (2 * rms)),
    }


def check(found: Comparison, expected: dict[str, Any], **tolerance: float) -> None:
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, **tolerance), name


@pytest.mark.parametrize(("n", "context", "stride"), [(300, 100, 50), (99, 33, 33), (40, 64, 9)])
def test_agrees_with_plain_numpy(n: int, context: int, stride: int) -> None:
    # Models that look at the last token only don't care how the text is cut.
    a, b = random_table(1), random_table(1) + random_table(2) / 4
    ids = random_ids(n)
    places = [i for w in windows(n, context, stride) for i in range(w.first, w.end)]
    before, scored = ([ids[i - k] for i in places] for k in (1, 0))
    (one, one_engine), (other, other_engine) = table_model(a), table_model(b)
    found = compare(one, other, ids, context=context, stride=stride)
    check(found, expected_figures(a[before], b[before], scored), rel=1e-9, abs=1e-14)
    assert 0.01 < found.kl.mean < 1
    assert 0.5 < found.same_top.mean < 1
    assert (found.n_tokens, found.context, found.stride) == (n, context, stride)
    assert found.n_vocab == VOCAB_SIZE
    # Both read exactly what perplexity reads.
    reads = [[s.tokens for s in engine.sequences] for engine in (one_engine, other_engine)]
    alone, engine = table_model(a)
    estimate = perplexity(alone, ids, context=context, stride=stride)
    assert reads[0] == reads[1] == [s.tokens for s in engine.sequences]
    assert found.perplexity_a.mean == pytest.approx(estimate.perplexity, rel=1e-12)
    assert found.perplexity_a.se == pytest.approx(estimate.perplexity_se, rel=1e-12)
    assert all(s.closed for e in (one_engine, other_engine) for s in e.sequences)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, edgeqwen.Model]]:
    """The same random weights in F32 and in Q4_0."""
    folder: Path = tmp_path_factory.mktemp("comparison")
    models = {
        type: edgeqwen.load(
            write_model(folder / f"{type}.gguf", n_layers=1, types=type),
            n_threads=1,
            max_context=300,
        )
        for type in ("F32", "Q4_0")
    }
    yield models
    for model in models.values():
        model.close()


def test_a_file_in_4_bits(tiny: dict[str, edgeqwen.Model]) -> None:
    a, b = tiny["F32"], tiny["Q4_0"]
    ids = random_tokens(120)
    # One window, so that the logits of the whole text are those that count.
    found = compare(a, b, ids, context=120)
    expected = expected_figures(a.logits(ids)[:-1], b.logits(ids)[:-1], ids[1:])
    check(found, expected, rel=1e-6, abs=1e-9)
    assert 1e-4 < found.kl.mean < 1
    ratio = found.perplexity_b.mean / found.perplexity_a.mean
    assert found.perplexity_ratio.mean == pytest.approx(ratio)


def test_a_model_is_as_itself(tiny: dict[str, edgeqwen.Model]) -> None:
    for model in tiny.values():
        found = compare(model, model, random_tokens(150), context=64)
        nothing = Estimate(0.0, 0.0)
        assert found.kl == found.nll_change == found.p_change == found.p_change_rms == nothing
        assert (found.kl_median, found.kl_p99_9, found.kl_max) == (0, 0, 0)
        assert found.same_top == Estimate(1.0, 0.0)
        assert found.perplexity_ratio == Estimate(1.0, 0.0)
        assert found.nll_correlation == pytest.approx(1)


def test_errors_of_changes_are_paired() -> None:
    # Both find the same tokens hard, so their difference is far surer than either.
    a = random_table(1)
    b = a + random_table(2) / 100
    found = compare(table_model(a)[0], table_model(b)[0], random_ids(300))
    assert found.nll_a.se is not None
    assert found.nll_change.se is not None
    assert found.nll_change.se < found.nll_a.se / 20
    assert found.nll_correlation == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("swapped", [False, True])
def test_padding_is_left_out(swapped: bool) -> None:
    # The larger vocabulary's last 128 ids are likely to its model, and tokens to none.
    a, b = random_table(1), random_table(2, VOCAB_SIZE + 128)
    b[:, VOCAB_SIZE:] += 9
    ids = random_ids(50)
    tables = [b, a] if swapped else [a, b]
    found = compare(*(table_model(table)[0] for table in tables), ids)  # type: ignore[call-arg]
    cut = [table[:, :VOCAB_SIZE][ids[:-1]] for table in tables]
    check(found, expected_figures(*cut, ids[1:]), rel=1e-9)  # type: ignore[call-arg]
    assert found.n_vocab == VOCAB_SIZE


def test_a_token_that_only_one_model_has() -> None:
    models = [table_model(random_table(1, n))[0] for n in (VOCAB_SIZE + 8, VOCAB_SIZE)]
    with pytest.raises(OptionError, match=rf"tokens\[1\] is {VOCAB_SIZE}: "):
        compare(models[0], models[1], [1, VOCAB_SIZE, 2])


def test_models_of_different_vocabularies(monkeypatch: pytest.MonkeyPatch) -> None:
    (a, engine), (b, _) = fake_model(), fake_model()
    monkeypatch.setattr(b.tokenizer, "token_bytes", lambda id: b"?")
    with pytest.raises(OptionError, match=r"q\.gguf: token 0 is '\?', expected '\\x00' as in f\."):
        compare(a, b, [1, 2], names=("f.gguf", "q.gguf"))
    assert not engine.sequences


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_the_model_whose_logits_are_no_numbers_is_named(wrong: float, which: int) -> None:
    tables = [random_table(1), random_table(2)]
    tables[which][5, 7] = wrong
    (a, one), (b, other) = (table_model(table) for table in tables)
    names = ("f16.gguf", "q4_0.gguf")
    with pytest.raises(EdgeqwenError, match=f"^{names[which]}'s logits are no numbers"):
        compare(a, b, [1, 2, 5, 3], names=names)
    assert all(s.closed for engine in (one, other) for s in engine.sequences)


def test_two_tokens_have_no_standard_errors() -> None:
    found = compare(table_model(random_table(1))[0], table_model(random_table(2))[0], [5, 5])
    assert found.n_scored == 1
    assert found.kl.se is None
    assert found.p_change_rms.se is None
    assert found.perplexity_ratio.se is None
    assert found.nll_correlation is None
    assert found.kl_median == found.kl_max == found.kl.mean > 0


def test_the_window_is_512_or_the_shorter_context() -> None:
    for contexts, expected in (((1000, 1000), (512, 256)), ((1000, 77), (77, 38))):
        a, b = (fake_model(max_context=n)[0] for n in contexts)
        found = compare(a, b, [1] * 600)
        assert (found.context, found.stride) == expected
    with pytest.raises(OptionError, match="the window has 78 tokens: expected 2 to 77"):
        compare(a, b, [1] * 600, context=78)


def test_progress_and_the_divergence_so_far() -> None:
    a, b = table_model(random_table(1))[0], table_model(random_table(2))[0]
    told: list[Any] = []
    found = compare(
        a,
        b,
        random_ids(100),
        context=40,
        running=told.append,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[1::2] == [(32, 99), (39, 99), (59, 99), (79, 99), (99, 99)]
    assert told[-2] == pytest.approx(found.kl.mean)
    assert len(set(told[::2])) == 5


@pytest.mark.parametrize("after", range(1, 40, 3))
@pytest.mark.parametrize("once", [False, True])
def test_cancelled_it_tells_of_what_both_have_scored(after: int, once: bool) -> None:
    ids = random_ids(200)
    a, b = random_table(1), random_table(2)
    (one, one_engine), (other, other_engine) = table_model(a), table_model(b)
    n_asked = 0

    def cancelled() -> bool:
        nonlocal n_asked
        n_asked += 1
        return n_asked == after if once else n_asked >= after

    found = compare(one, other, ids, context=90, stride=50, cancelled=cancelled)
    n = found.n_scored
    assert 1 <= n <= 199
    # The models were never at different tokens, whoever of them was stopped first.
    check(found, expected_figures(a[ids[:n]], b[ids[:n]], ids[1 : n + 1]), rel=1e-9)
    assert all(s.closed for engine in (one_engine, other_engine) for s in engine.sequences)
    if after < 10:
        assert n < 199


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1], "the text is too short: tokens has length 1, expected at least 2"),
        ("text", "tokens is of type str: "),
    ],
)
def test_senseless_arguments(tokens: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        compare(fake_model()[0], fake_model()[0], tokens)
