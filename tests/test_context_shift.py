"""Conversations that outgrow the context: whole turns are forgotten, and nothing is read again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from edgeqwen.chat import Chat
from edgeqwen.context_shift import Turns
from edgeqwen.errors import ContextFullError
from tests.engines import open_engine, write_model
from tests.fakes import FakeEngine, FakeTemplate, FakeTokenizer, fake_model

ANSWER = b"fine"
SYSTEM, FIRST = {"role": "system", "content": "s"}, {"role": "user", "content": "first"}


def encode(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    return FakeTemplate().encode(FakeTokenizer(), messages)


def chatting(
    n_turns: int, *, max_context: int, script: bytes = ANSWER
) -> tuple[Chat, FakeEngine, list[int]]:
    """Returns a conversation after some turns, and how many turns were forgotten after each."""
    model, engine = fake_model(script, max_context=max_context)
    chat = model.chat("s", context_shift=True)
    seen = []
    for i in range(n_turns):
        text = "first" if i == 0 else f"question {i}"
        chat.send(text)  # never looked at
        assert chat.n_forgotten == (seen[-1] if seen else 0)
        chat.send(text).text  # noqa: B018
        seen.append(chat.n_forgotten)
    return chat, engine, seen


def test_the_oldest_turns_after_the_first_are_forgotten() -> None:
    chat, engine, seen = chatting(12, max_context=300)
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] > 0
    # Several at a time, so that it doesn't happen for every turn.
    assert len(set(seen)) < 6
    assert len(chat.messages) == 1 + 2 * 12
    kept = [*chat.messages[:3], *chat.messages[3 + 2 * seen[-1] :]]
    (sequence,) = engine.sequences
    # Without the end of the last answer, which no step has computed.
    assert sequence.tokens == encode(kept)[: sequence.n_tokens]
    assert sequence.n_tokens <= 300


def test_what_is_kept_is_not_read_again() -> None:
    _, engine, seen = chatting(12, max_context=300)
    assert len(engine.shifts) == len(set(seen)) - 1
    read = [len(tokens) for tokens in engine.prefilled]
    # Each turn reads its question, the end of the answer before, and the beginning of its own.
    assert max(read[1:]) < 45
    first, n = engine.shifts[0]
    turn = [{"role": "user", "content": "question 1"}, {"role": "assistant", "content": "fine"}]
    n_turn = len(encode(turn)) - len(encode([]))
    assert n % n_turn == 0
    head = [SYSTEM, FIRST, {"role": "assistant", "content": "fine"}]
    # Where turns begin alike, it is the same which of the beginnings stays.
    n_same = len(encode([])) - len(b"assistant\n") + len(b"user\nquestion ")
    assert first == len(encode(head)) - len(encode([])) + n_same


def test_an_answer_goes_on_when_the_context_is_full() -> None:
    chat, engine, _ = chatting(3, max_context=400)
    engine.script = [*b"x" * 300]
    answer = chat.send("a long one")
    n_before = len(engine.shifts)
    assert answer.text == "x" * 300
    assert answer.finish_reason == "eos"
    assert len(engine.shifts) > n_before
    assert chat.n_forgotten == 2
    head, last = chat.messages[:3], chat.messages[-2:]
    (sequence,) = engine.sequences
    assert sequence.tokens == encode([*head, *last])[: sequence.n_tokens]
    assert sequence.n_tokens <= 400


def test_several_shifts_during_one_conversation_of_long_answers() -> None:
    chat, engine, seen = chatting(9, max_context=400, script=b"y" * 70)
    assert all(message["content"] == "y" * 70 for message in chat.messages[2::2])
    assert len(engine.shifts) >= 3
    assert seen[-1] >= 4


def test_an_answer_ends_when_nothing_is_left_to_forget() -> None:
    chat, engine, _ = chatting(2, max_context=240)
    engine.script = [*b"x" * 500]
    answer = chat.send("endless")
    assert answer.finish_reason is None
    n = len(answer.text)
    assert answer.finish_reason == "length"
    assert chat.n_forgotten == 1
    assert engine.sequences[0].n_tokens == 240
    assert len(chat.messages[-1]["content"]) == n > 50
    # The next one fits, for the long answer is forgotten.
    engine.script = [*ANSWER]
    assert chat.send("and now?").text == "fine"
    assert chat.n_forgotten == 2


def test_a_long_first_turn_is_forgotten_but_for_the_system_prompt() -> None:
    model, engine = fake_model(b"z" * 60, max_context=200)
    chat = model.chat("s", context_shift=True)
    for i in range(4):
        chat.send(f"q{i}").text  # noqa: B018
    assert chat.n_forgotten > 0
    sequence = engine.sequences[0]
    kept = [chat.messages[0], *chat.messages[1 + 2 * chat.n_forgotten :]]
    assert sequence.tokens == encode(kept)[: sequence.n_tokens]


def test_a_question_that_never_fits_is_refused_and_changes_nothing() -> None:
    chat, engine, seen = chatting(10, max_context=300)
    assert seen[-1] > 0
    n_messages, shifts = len(chat.messages), list(engine.shifts)
    with pytest.raises(ContextFullError, match=r"so many; no more turns can be forgotten$"):
        chat.send("x" * 300)
    assert (len(chat.messages), chat.n_forgotten) == (n_messages, seen[-1])
    assert chat.send("short").text == "fine"
    assert len(engine.shifts) <= len(shifts) + 1
    assert len(engine.prefilled[-1]) < 45


def test_by_default_nothing_is_forgotten() -> None:
    model, engine = fake_model(b"a" * 60, max_context=120)
    chat = model.chat()
    assert chat.send("x").text == "a" * 60
    answer = chat.send("y")
    assert len(answer.text) < 60
    assert answer.finish_reason == "length"
    with pytest.raises(ContextFullError, match=r"or let the oldest turns be forgotten .*-shift"):
        chat.send("x" * 40)
    assert engine.shifts == []
    assert chat.n_forgotten == 0


def test_a_generation_without_a_conversation_ends_at_the_context() -> None:
    model, engine = fake_model(b"a" * 500, max_context=50)
    answer = model.generate("x")
    assert answer.text == "a" * 50
    assert answer.finish_reason == "length"
    assert engine.shifts == []


def test_messages_that_were_edited_away_are_not_forgotten_any_more() -> None:
    chat, engine, seen = chatting(10, max_context=300)
    assert seen[-1] > 0
    del chat.messages[1:]
    assert chat.n_forgotten == 0
    assert chat.send("anew").text == "fine"
    assert engine.sequences[0].tokens[: len(encode(chat.messages[:2]))] == encode(chat.messages[:2])


class NumberedTemplate(FakeTemplate):
    """Renders a message otherwise when others are gone."""

    def encode(
        self, tokenizer: FakeTokenizer, messages: Sequence[Mapping[str, Any]], **options: Any
    ) -> list[int]:
        named = [
            {**message, "content": f"{len(messages) - i}: {message['content']}"}
            for i, message in enumerate(messages)
        ]
        return super().encode(tokenizer, named, **options)


def test_a_prompt_that_changes_elsewhere_is_read_again() -> None:
    model, engine = fake_model(ANSWER, max_context=300)
    model._template = NumberedTemplate()  # type: ignore[assignment]
    chat = model.chat("s", context_shift=True)
    for i in range(8):
        assert chat.send(f"question {i}").text == "fine"
    assert chat.n_forgotten > 0
    assert engine.shifts == []
    engine.script = [*b"x" * 300]
    assert chat.send("endless").text
    assert chat.messages[-1]["content"].startswith("xxx")


def test_turns_know_what_was_forgotten_by_the_first_that_is_kept() -> None:
    turns = Turns(encode, 100)
    texts = ["one", "two", "three", "four"]
    messages = [
        message
        for text in texts
        for message in (
            {"role": "user", "content": text},
            {"role": "assistant", "content": ""},
            {"role": "tool", "content": "more"},
        )
    ]
    messages.append({"role": "user", "content": "last"})
    forgotten = turns.to_forget(messages, len(encode(messages)))
    assert forgotten is not None
    assert turns.n_forgotten(messages) == 0
    turns.forget(forgotten)
    n = turns.n_forgotten(messages)
    assert n > 0
    # The first turn is longer than a quarter of the context: it goes with the others.
    assert turns.prompt(messages) == forgotten.after == encode(messages[3 * n :])
    assert turns.n_forgotten([dict(message) for message in messages]) == 0


def test_turns_that_were_deleted_are_not_told_twice() -> None:
    chat, _, seen = chatting(12, max_context=300)
    first_kept = 3 + 2 * seen[-1]
    assert chat._turns.prompt(chat.messages) == encode(
        [*chat.messages[:3], *chat.messages[first_kept:]]
    )
    for first in (3, 1):  # without those that were forgotten; without the first turn, too
        left = [*chat.messages[:first], *chat.messages[first_kept:]]
        assert chat._turns.prompt(left) == encode(left)
        assert chat._turns.n_forgotten(left) == 0


def test_a_real_engine_goes_on(tmp_path: Any) -> None:
    """Shifts in the middle of answers and between them; the logits stay finite."""
    path = write_model(tmp_path / "tiny.gguf", types="Q8_0", max_context=300)
    model, _ = fake_model()
    with open_engine(path) as engine:
        model._shared.engine = engine
        chat = model.chat("s", context_shift=True, temperature=1.0, seed=1)
        chat.send("first", max_tokens=5).text  # noqa: B018
        finished = []
        for i in range(5):
            answer = chat.send(f"question {i}", max_tokens=90)
            assert len(answer.tokens) <= 90
            finished.append(answer.finish_reason)
            sequence = chat._memory._sequence
            assert sequence is not None
            assert sequence.n_tokens <= 300
        assert chat.n_forgotten > 1
        assert set(finished) <= {"length", "eos"}
        if sequence.n_tokens == 300:
            engine.shift(sequence, 5, 10)
        assert np.isfinite(engine.decode(sequence, 7)).all()
        chat.close()


def test_no_token_is_moved_often() -> None:
    """Each move rounds keys once more to the type of the cache."""
    _, engine, seen = chatting(60, max_context=300)
    assert len(engine.shifts) > 5
    # How often each position was moved, through all shifts.
    moves: list[int] = []
    for (keep, n_dropped), read in zip(engine.shifts, engine.held_at_shifts, strict=True):
        moves += [0] * (read - len(moves))
        moves = moves[:keep] + [n + 1 for n in moves[keep + n_dropped : read]]
        assert max(moves) <= 2
    assert max(seen) > 20
