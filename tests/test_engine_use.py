"""Using the engine, rightly and wrongly: what it refuses, and how it ends."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.cache import Sequence
from edgeqwen.engine import Engine
from edgeqwen.errors import ClosedError, ContextFullError, OptionError, UnsupportedError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.model.steps import PREFILL_TOKENS, STEPS
from edgeqwen.warmup import warmup
from tests.engines import F32_CACHE, open_engine, random_tokens, write_model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    return write_model(folder / "tiny.gguf", types="Q8_0", n_layers=1)


@pytest.fixture(scope="module")
def engine(path: Path) -> Iterator[Engine]:
    with open_engine(path, max_context=300) as opened:
        yield opened


@pytest.fixture
def sequence(engine: Engine) -> Iterator[Sequence]:
    made = engine.new_sequence()
    yield made
    made.close()


def test_what_it_says_of_itself(engine: Engine) -> None:
    assert (engine.n_threads, engine.max_context) == (2, 300)
    assert engine.config.name == "tiny"


def test_the_context_is_the_file_s_unless_asked_otherwise(path: Path) -> None:
    with open_engine(path) as engine:
        assert engine.max_context == 1024
    with open_engine(path, max_context=5000) as engine:  # more than it was trained for
        assert engine.max_context == 5000


def test_logits_are_a_view_until_the_next_step(engine: Engine, sequence: Sequence) -> None:
    logits = engine.prefill(sequence, [1, 2, 3])
    assert (logits.dtype.name, logits.shape) == ("float32", (331,))
    every = engine.logits(sequence, [4, 5])
    assert (every.dtype.name, every.shape) == ("float32", (2, 331))
    assert engine.decode(sequence, 6).shape == (331,)
    kept = every.copy()
    engine.logits(sequence, [7, 8])
    np.testing.assert_array_equal(every, kept)  # only single rows are views
    assert sequence.tokens == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sequence.n_tokens == 8


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda t: np.array(t, np.uint32)])
def test_tokens_may_be_any_integers(engine: Engine, sequence: Sequence, kind: Any) -> None:
    engine.prefill(sequence, kind([330, 0, 7]))
    engine.decode(sequence, np.int64(9))  # type: ignore[arg-type]
    assert sequence.tokens == [330, 0, 7, 9]
    assert all(type(token) is int for token in sequence.tokens)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "no tokens: a step needs at least one"),
        ([5, 331], "token 331 is outside the vocabulary of 331 tokens"),
        ([5, -1, 400], "token -1 is outside the vocabulary of 331 tokens"),
        ([2**63], f"token {2**63} is outside the vocabulary of 331 tokens"),
        ([1, 2**80], f"tokens must be integers, not [1, {2**80}]"),
        ([1.0, 2.5], "tokens must be integers, not [1.0, 2.5]"),
        (["1"], "tokens must be integers, not ['1']"),
        ("12", "tokens must be integers, not '12'"),
        ([None], "tokens must be integers, not [None]"),
        ([[1, 2], [3, 4]], "tokens must be integers, not [[1, 2], [3, 4]]"),
        ([[1, 2], [3]], "tokens must be integers, not [[1, 2], [3]]"),
        (5, "tokens must be integers, not 5"),
    ],
)
def test_bad_tokens_are_refused(
    engine: Engine, sequence: Sequence, tokens: Any, message: str
) -> None:
    engine.prefill(sequence, [1, 2])
    for step in (engine.prefill, engine.logits):
        with pytest.raises(OptionError) as caught:
            step(sequence, tokens)
        assert str(caught.value) == message
    assert sequence.tokens == [1, 2]


def test_a_bad_single_token_is_refused(engine: Engine, sequence: Sequence) -> None:
    with pytest.raises(OptionError, match="token -3 is outside the vocabulary of 331 tokens"):
        engine.decode(sequence, -3)


def test_the_context_can_be_filled_to_the_last_token(engine: Engine, sequence: Sequence) -> None:
    tokens = random_tokens(299)
    engine.prefill(sequence, tokens)
    assert np.isfinite(engine.decode(sequence, 1)).all()
    with pytest.raises(ContextFullError) as caught:
        engine.decode(sequence, 2)
    assert str(caught.value) == (
        "1 more tokens after 300 don't fit into the context of 300; load the model with a larger "
        "max_context (it was trained for 1024)"
    )
    sequence.truncate(290)
    with pytest.raises(ContextFullError, match="11 more tokens after 290 don't fit"):
        engine.prefill(sequence, [1] * 11)
    assert np.isfinite(engine.logits(sequence, [1] * 10)).all()
    assert sequence.n_tokens == 300


def test_progress_and_cancelling(engine: Engine, sequence: Sequence) -> None:
    tokens = random_tokens(PREFILL_TOKENS + 10)
    steps: list[tuple[int, int]] = []
    engine.prefill(sequence, tokens, progress=lambda *step: steps.append(step))
    assert steps == [(PREFILL_TOKENS, len(tokens)), (len(tokens), len(tokens))]
    sequence.truncate(0)
    engine.prefill(sequence, tokens, cancelled=lambda: True)
    assert sequence.tokens == tokens[:PREFILL_TOKENS]  # what was read so far
    # The rest can follow later, as if nothing had been.
    found = engine.prefill(sequence, tokens[PREFILL_TOKENS:]).copy()
    sequence.truncate(0)
    np.testing.assert_array_equal(engine.prefill(sequence, tokens), found)


def test_truncating(engine: Engine, sequence: Sequence) -> None:
    engine.prefill(sequence, [1, 2, 3])
    for n in (4, -1):
        with pytest.raises(OptionError) as caught:
            sequence.truncate(n)
        assert str(caught.value) == f"can't truncate to {n} tokens: the sequence holds 3"
    sequence.truncate(3)
    sequence.truncate(0)
    assert sequence.tokens == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_context": 0}, "max_context is 0; it must be at least 1"),
        ({"max_context": -5}, "max_context is -5; it must be at least 1"),
        ({"n_threads": 0}, "n_threads is 0; it must be between 1 and 256"),
        ({"max_context": 2**24 + 1}, "max_context is 16777217; it can't be more than 16777216"),
        (
            {"cache_type": "q5_0"},
            "cache_type is 'q5_0'; it must be one of f16, bf16, q8_0, q4_0, f32",
        ),
    ],
)
def test_senseless_options_are_refused(path: Path, options: dict[str, Any], message: str) -> None:
    with GgufFile.open(path) as file, pytest.raises(OptionError) as caught:
        Engine(file, **options)
    assert str(caught.value) == message


def test_a_model_that_kernels_do_not_run_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", hidden_size=72)
    with GgufFile.open(path) as file, pytest.raises(UnsupportedError, match="hidden_size is 72"):
        Engine(file)


def test_a_sequence_of_another_model_is_refused(tmp_path: Path, engine: Engine) -> None:
    """Its cache has another layout: kernels would write past its end."""
    path = write_model(tmp_path / "other.gguf", **F32_CACHE)
    with open_engine(path) as other:
        foreign = other.new_sequence()
        with pytest.raises(OptionError) as caught:
            engine.prefill(foreign, [1, 2])
        assert str(caught.value) == (
            "this sequence was made by another model, or with another cache type"
        )
        assert foreign.tokens == []
        foreign.close()


def test_closed_sequences(engine: Engine) -> None:
    sequence = engine.new_sequence()
    engine.prefill(sequence, [1, 2])
    sequence.close()
    sequence.close()
    with pytest.raises(ClosedError, match="this sequence was closed; make a new one"):
        engine.decode(sequence, 3)


def test_closing(path: Path) -> None:
    before = set(threading.enumerate())
    with open_engine(path) as engine:
        sequence = engine.new_sequence()
        logits = engine.prefill(sequence, [1, 2, 3])
        kept = logits.copy()
        engine.close()
        engine.close()
        np.testing.assert_array_equal(logits, kept)  # a view that is held stays readable
        uses = [
            lambda: engine.prefill(sequence, [4]),
            lambda: engine.decode(sequence, 4),
            lambda: engine.logits(sequence, [4]),
            engine.new_sequence,
        ]
        for use in uses:
            with pytest.raises(ClosedError) as caught:
                use()
            assert str(caught.value) == "the model was closed; load it again to use it"
        sequence.close()
    assert set(threading.enumerate()) == before


def test_an_engine_that_was_never_used_closes(path: Path) -> None:
    with open_engine(path) as engine:
        assert engine.kernels()


def test_warming_up_compiles_all_that_a_model_needs(path: Path) -> None:
    steps: list[tuple[int, int]] = []
    warmup(path, n_threads=2, progress=lambda *step: steps.append(step))
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, total in steps} == {len(steps)}
    with open_engine(path, max_context=64) as engine:
        assert len(engine.kernels()) == len(steps)
        names = {name for name, _ in engine.kernels()}
        assert {"gemm", "gemv", "norm", "attention_one", "attention_many", "pack"} <= names
        assert set(STEPS) == {"decode", "prefill", "logits"}
