"""A model whose head is screened gives the tokens and the logits that it gives without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.engine import Engine
from edgeqwen.errors import EdgeqwenError
from edgeqwen.formats import Q6_K, Q8_0
from edgeqwen.formats.screened import LEAST_ROWS, SCREENED
from edgeqwen.gguf_file import GgufFile
from edgeqwen.kernels.coarse import LOWEST
from edgeqwen.kernels.screen import MOST_WANTED
from edgeqwen.model import weights as weights_module
from edgeqwen.model.unloaded import unloaded_family
from edgeqwen.model.wanted import Wanted
from edgeqwen.sampling import Sampler, SamplingOptions
from edgeqwen.warmup import warmup
from tests.engines import open_engine, write_model

VOCAB = 2411  # no whole tiles
MODELS: dict[str, dict[str, Any]] = {
    "tied": {"types": {"token_embd": "Q8_0"}},
    "untied": {"types": {"token_embd": "F16", "output": "Q8_0"}, "tied": False},
    "Q6_K": {"types": {"token_embd": "Q6_K"}, "hidden_size": 256},
}
TOKENS = [5, 77, 900, 2410, 0, 1303, 44]


def untouched(k: int = 20) -> Wanted:
    """Returns a wish without penalties."""
    return Wanted(k, np.zeros(VOCAB, np.uint8))


@pytest.fixture(autouse=True)
def small_heads_are_screened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "LEAST_ROWS", 1000)


@pytest.fixture(scope="module", params=MODELS)
def path(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("screened")
    return write_model(folder / "tiny.gguf", vocab_size=VOCAB, **MODELS[request.param])


@pytest.fixture
def engines(path: Path) -> Iterator[tuple[Engine, Engine]]:
    """With the full head, and with a screen."""
    with open_engine(path, full_head=True) as full, open_engine(path) as screened:
        yield full, screened


def test_logits_are_the_full_head_s(engines: tuple[Engine, Engine]) -> None:
    full, screened = engines
    a, b = full.new_sequence(), screened.new_sequence()
    np.testing.assert_array_equal(screened.prefill(b, TOKENS), full.prefill(a, TOKENS))
    n_unknown = 0
    for i in range(40):
        token = (37 * i) % VOCAB
        expected = full.decode(a, token).copy()
        if i % 4 == 3:
            np.testing.assert_array_equal(screened.decode(b, token), expected)
            continue
        found = screened.decode(b, token, untouched((1, 20, MOST_WANTED)[i % 3]))
        known = found != np.float32(LOWEST)
        np.testing.assert_array_equal(found[known], expected[known])
        top = np.argsort(-expected, kind="stable")[: (1, 20, MOST_WANTED)[i % 3]]
        assert known[top].all()
        n_unknown += np.count_nonzero(~known)
    assert n_unknown > VOCAB
    for sequence in (a, b):
        sequence.truncate(0)
    np.testing.assert_array_equal(screened.logits(b, TOKENS), full.logits(a, TOKENS))
    for sequence in (a, b):
        sequence.close()


def test_the_number_of_threads_changes_nothing(path: Path) -> None:
    found = []
    for n_threads in (1, 3):
        with open_engine(path, n_threads=n_threads) as engine:
            sequence = engine.new_sequence()
            engine.prefill(sequence, TOKENS)
            rows = [engine.decode(sequence, token, untouched()).copy() for token in range(20)]
            found.append(np.array(rows))
            sequence.close()
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] == np.float32(LOWEST)).any()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "repetition_penalty": 1.0},
        {},
        {"temperature": 2.0, "top_k": 100, "top_p": 1.0, "repetition_penalty": 1.0},
        {"temperature": 1.0, "presence_penalty": 1.0, "frequency_penalty": 0.5},
        {"temperature": 1.5, "repetition_penalty": 1.5, "min_p": 0.02, "top_p": 0.95},
        {"repetition_penalty": 0.8, "top_k": 5},
        {"top_k": 0},
    ],
    ids=str,
)
def test_the_same_tokens_are_chosen(
    engines: tuple[Engine, Engine], options: dict[str, Any]
) -> None:
    for seed in range(3):
        answers = []
        for engine in engines:
            sampling = SamplingOptions(**{"seed": seed, **options})
            sampler = Sampler(sampling, VOCAB, prompt=TOKENS)
            sequence = engine.new_sequence()
            answer = [sampler.sample(engine.prefill(sequence, TOKENS))]
            for _ in range(30):
                logits = engine.decode(sequence, answer[-1], sampler.wanted)
                answer.append(sampler.sample(logits))
            answers.append(answer)
            sequence.close()
        assert answers[0] == answers[1]


def test_what_is_no_number_is_reported_as_ever(engines: tuple[Engine, Engine]) -> None:
    """A NaN among the weights of one row, which nothing but its own logit shows."""
    messages = []
    for engine in engines:
        engine.wait_until_loaded()
        head = engine._weights.head
        region = engine._weights._region
        row_bytes = head.row_tiles * head.format.tile_bytes
        at = head.address - region.address + 70 * row_bytes
        region.view(at, 2)[:] = 0xFF
        sampler = Sampler(SamplingOptions(), VOCAB)
        sequence = engine.new_sequence()
        engine.prefill(sequence, [3])
        with pytest.raises(EdgeqwenError) as caught:
            sampler.sample(engine.decode(sequence, 5, sampler.wanted))
        messages.append(str(caught.value))
        sequence.close()
    assert messages[0] == messages[1]
    assert messages[0].startswith("the model's logits are no numbers: logit 1120 is nan, and 1 of")


def test_the_full_head_is_laid_out_plainly(engines: tuple[Engine, Engine]) -> None:
    full, screened = (engine._weights.head for engine in engines)
    assert full.format in (Q8_0, Q6_K)
    assert screened.format is SCREENED[full.format.ggml_type]
    assert screened.n_bytes + screened.apart_bytes == full.n_bytes
    assert engines[0]._weights.n_bytes == engines[1]._weights.n_bytes
    tied = engines[0].config.tie_word_embeddings
    assert (engines[1]._weights.embedding.format is screened.format) is tied


def test_small_heads_are_not_screened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "LEAST_ROWS", VOCAB + 1)
    with open_engine(path) as engine:
        assert engine._weights.head.format in (Q8_0, Q6_K)
        sequence = engine.new_sequence()
        engine.prefill(sequence, TOKENS)
        assert (engine.decode(sequence, 5, untouched()) != np.float32(LOWEST)).all()
        sequence.close()


def test_a_wish_that_makes_no_sense_changes_nothing(engines: tuple[Engine, Engine]) -> None:
    _, screened = engines
    sequence = screened.new_sequence()
    with pytest.raises(EdgeqwenError, match="expected k"):
        screened.decode(sequence, 5, Wanted(20, np.zeros(VOCAB + 1, np.uint8)))
    assert sequence.tokens == []
    assert np.isfinite(screened.decode(sequence, 5, untouched())).all()
    sequence.close()


@pytest.mark.parametrize("full_head", [True, False])
def test_warming_up_compiles_all_that_is_needed(path: Path, full_head: bool) -> None:
    steps: list[int] = []
    warmup(path, n_threads=2, full_head=full_head, progress=lambda *step: steps.append(step[1]))
    with GgufFile.open(path) as file:
        engine = Engine(file, n_threads=2, max_context=64, full_head=full_head)
        names = {name for name, _ in engine.kernels()}
        assert len(engine.kernels()) == len(steps)
        engine.close()
    assert ("compute_survivors" in names) is not full_head


def test_warming_up_for_every_model_compiles_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "LEAST_ROWS", LEAST_ROWS)
    tokens: dict[str, set[str]] = {}
    for model in unloaded_family():
        engine = Engine(model, n_threads=1, max_context=64, pack=False)
        for name, token in engine.kernels():
            tokens.setdefault(name, set()).add(token)
        engine.close()
    assert len(tokens["coarse"]) == len(SCREENED)
    for name in ("embed", "gemv", "gemm"):
        assert sum("screened" in token for token in tokens[name]) == len(SCREENED)
