"""Turns forgotten in the middle of a session: all at once, or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest

import edgeqwen
from edgeqwen.cache.session_copies import copy_to_memory
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import Identity
from edgeqwen.cache.verify import verify
from edgeqwen.engine import Engine
from edgeqwen.reuse import kept_prompts
from tests.engines import open_engine, write_model
from tests.test_engine import random_tokens

TOKENS = random_tokens(700)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("shift") / "tiny.gguf", types="Q8_0", tied=False)


def identity(engine: Engine) -> Identity:
    return Identity(engine.layout, b"w" * 32, b"s" * 32, engine.config.vocab_size, "tiny")


@pytest.mark.parametrize(
    ("keep", "n_dropped", "cache_type"),
    [
        (0, 300, "f16"),
        (20, 300, "q8_0"),
        (256, 100, "f32"),
        (300, 256, "q4_0"),
        (300, 100, "bf16"),
    ],
)
def test_the_same_as_in_memory(
    path: Path, tmp_path: Path, keep: int, n_dropped: int, cache_type: str
) -> None:
    file = tmp_path / "a.session"
    with open_engine(path, cache_type=cache_type) as engine:
        free = engine.new_sequence()
        kept = engine.new_sequence(SessionFile.create(file, identity(engine)))
        for sequence in (free, kept):
            engine.prefill(sequence, TOKENS)
            engine.shift(sequence, keep, n_dropped)
        assert kept.tokens == free.tokens == TOKENS[:keep] + TOKENS[keep + n_dropped :]
        kept.close()
        assert verify(file).problems == ()
        assert verify(file).n_covered == 700 - n_dropped
        again = engine.new_sequence(SessionFile.open(file, identity(engine)))
        assert again.tokens == free.tokens
        expected = engine.prefill(free, [1, 2, 3]).copy()
        np.testing.assert_array_equal(engine.prefill(again, [1, 2, 3]), expected)
        again.close()
        free.close()


def test_what_was_not_finished_changes_nothing(path: Path, tmp_path: Path) -> None:
    """As a process that is killed leaves it after the tokens were moved, and before the commit."""
    file = tmp_path / "a.session"
    with open_engine(path) as engine:
        kept = engine.new_sequence(SessionFile.create(file, identity(engine)))
        engine.prefill(kept, TOKENS)
        expected = engine.decode(kept, 5).copy()
        kept.truncate(700)
        kept.moved = lambda *_: None  # type: ignore[method-assign]
        engine.shift(kept, 20, 300)
        kept.abandon()
        again = engine.new_sequence(SessionFile.open(file, identity(engine)))
        assert again.tokens == TOKENS
        np.testing.assert_array_equal(engine.decode(again, 5), expected)
        again.close()


def test_the_places_of_what_was_moved_are_used_again(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.session"
    with open_engine(path) as engine:
        kept = engine.new_sequence(SessionFile.create(file, identity(engine)))
        sizes = []
        for _ in range(4):
            engine.prefill(kept, TOKENS[kept.n_tokens :])
            engine.shift(kept, 20, 400)
            sizes.append(os.path.getsize(file))
        kept.close()
    assert sizes[1:] == sizes[:1] * 3


def test_a_fork_does_not_see_the_shift(path: Path) -> None:
    with open_engine(path) as engine:
        first = engine.new_sequence()
        engine.prefill(first, TOKENS)
        fork = first.fork()
        expected = engine.decode(first, 5).copy()
        first.truncate(700)
        engine.shift(first, 20, 300)
        assert fork.tokens == TOKENS
        np.testing.assert_array_equal(engine.decode(fork, 5), expected)
        fork.close()
        first.close()


def test_a_chat_remembers_what_it_has_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "a.session"
    questions = [f"How do I quantize a model in {n} bits?" for n in (4, 8)] * 5
    options = {"temperature": 0.0, "context_shift": True}
    with edgeqwen.load(max_context=300) as model:
        free, kept = model.chat(**options), model.chat(session=file, **options)
        for question in questions:
            expected = free.send(question).text
            assert kept.send(question).text == expected
        assert kept.n_forgotten == free.n_forgotten > 0
        kept.close()
        again = model.chat(session=file, **options)
        assert (again.n_forgotten, again.messages) == (free.n_forgotten, free.messages)
        answers = [chat.send("Thanks") for chat in (free, again)]
        assert answers[0].text == answers[1].text
        assert answers[1].stats.n_reused == answers[0].stats.n_reused > 0


def test_what_knows_forgotten_turns_is_not_kept_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys and values aren't those that reading the same tokens gives."""
    monkeypatch.setattr("edgeqwen.reuse.user_prefixes", lambda: tmp_path / "prefixes")
    monkeypatch.setattr("edgeqwen.cache.fingerprint.user_cache", lambda: tmp_path)
    with edgeqwen.load() as model:
        sequence = model.engine.new_sequence()
        model.engine.prefill(sequence, list(range(300, 1000)))
        model.engine.shift(sequence, 500, 100)
        model.engine.prefill(sequence, list(range(300, 500)))
        assert (sequence.n_tokens, sequence.n_in_order) == (800, 500)
        assert sequence.fork(700).n_in_order == 500
        model._reuse.keep(sequence, 800, 0)
        model._reuse.wait()
        assert not (tmp_path / "prefixes").exists()
        sequence.truncate(400)
        model.engine.prefill(sequence, list(range(300, 500)))
        assert sequence.n_in_order == 600
        model._reuse.keep(sequence, 600, 0)
        model._reuse.wait()
        assert len(kept_prompts()) == 1


def test_what_was_moved_is_known_after_opening(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.session"
    with open_engine(path) as engine:
        sequence = engine.new_sequence(SessionFile.create(file, identity(engine)))
        engine.prefill(sequence, TOKENS)
        for keep, n_dropped, n_in_order in ((300, 100, 300), (400, 50, 300), (20, 10, 20)):
            engine.shift(sequence, keep, n_dropped)
            assert sequence.n_in_order == n_in_order
        sequence.close()
        sequence = engine.new_sequence(SessionFile.open(file, identity(engine)))
        assert sequence.n_in_order == 20
        engine.prefill(sequence, [1, 2, 3])
        assert sequence.n_in_order == 20
        assert sequence.fork(100).n_in_order == 20
        assert sequence.fork(15).n_in_order == 15
        sequence.truncate(20)
        engine.prefill(sequence, [1, 2, 3])
        assert sequence.n_in_order == 23
        sequence.close()
        store, _, _ = copy_to_memory(file, identity(engine))
        assert engine.new_sequence(store).n_in_order == 23


def test_prompts_that_have_lost_no_turns_are_read_again(tmp_path: Path) -> None:
    """Where turns were forgotten, and then all messages after them: the rest still knows them."""
    file = tmp_path / "a.session"
    options = {"temperature": 0.0, "repetition_penalty": 1.0, "context_shift": True}
    with edgeqwen.load(max_context=300) as model:
        chat = model.chat(session=file, **options)
        i = 0
        while not chat.n_forgotten:
            list(chat.send(f"How do I quantize a model in {4 + i % 5} bits?", max_tokens=20))
            i += 1
        kept = chat._turns.first_kept(chat.messages)
        question = chat.messages[kept]["content"]
        chat.close()
        chat = model.chat(session=file, **options)
        # As an application does that keeps messages by itself: what was forgotten is gone.
        chat.messages = [dict(message) for message in chat.messages[:2]]
        answer = chat.send(question, max_tokens=8)
        fresh = model.chat(**options)
        fresh.messages = [dict(message) for message in chat.messages[:2]]
        expected = fresh.send(question, max_tokens=8)
        assert (answer.text, answer.stats.n_prompt) == (expected.text, expected.stats.n_prompt)
        sequence = chat._memory._sequence
        assert sequence is not None
        assert sequence.n_in_order == sequence.n_tokens
        chat.close()
