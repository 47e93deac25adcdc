"""Chat: the messages, what of the KV cache is kept, and answers that are broken off."""

import gc
import threading
import weakref

import pytest

from edgeqwen.errors import ClosedError, ContextFullError, OptionError
from tests.fakes import EOS, FakeEngine, FakeTemplate, FakeTokenizer, fake_model


def prompt_of(*messages: tuple[str, str]) -> list[int]:
    """Returns the ids of a conversation that waits for an answer."""
    as_dicts = [{"role": role, "content": content} for role, content in messages]
    return FakeTemplate().encode(FakeTokenizer(), as_dicts)


def read_by(engine: FakeEngine) -> list[int]:
    """Returns how many tokens each prompt had to be read for."""
    return [len(tokens) for tokens in engine.prefilled]


def test_a_conversation_grows_and_reads_only_what_is_new() -> None:
    model, engine = fake_model(b"fine")
    chat = model.chat(system="short")
    assert chat.send("hello").text == "fine"
    assert chat.send("and you?").text == "fine"
    assert chat.messages == [
        {"role": "system", "content": "short"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "and you?"},
        {"role": "assistant", "content": "fine"},
    ]
    first = prompt_of(("system", "short"), ("user", "hello"))
    second = prompt_of(
        ("system", "short"), ("user", "hello"), ("assistant", "fine"), ("user", "and you?")
    )
    # The answer's tokens were computed while it was generated, its end was not.
    assert engine.prefilled == [first, second[len(first) + len("fine") :]]
    assert len(engine.sequences) == 1


def test_statistics_count_what_was_reused() -> None:
    model, _ = fake_model(b"fine")
    chat = model.chat()
    chat.send("hello").close()
    n_first = len(prompt_of(("user", "hello")))
    assert chat.send("hello").stats.n_reused == 0  # the first was closed before it began
    stats = chat.send("again").stats
    assert stats.n_reused == n_first + len("fine")
    assert stats.prefill_tps == pytest.approx((stats.n_prompt - stats.n_reused) / stats.prefill_s)


def test_without_a_system_prompt_the_template_decides() -> None:
    model, _ = fake_model(b"a")
    assert model.chat().messages == []
    assert model.chat(system="").messages == [{"role": "system", "content": ""}]


def test_edited_messages_are_read_again_from_where_they_differ() -> None:
    model, engine = fake_model(b"fine")
    chat = model.chat()
    chat.send("hello").text  # noqa: B018
    chat.messages[1]["content"] = "bad"
    assert chat.send("why?").text == "fine"
    whole = prompt_of(("user", "hello"), ("assistant", "bad"), ("user", "why?"))
    assert engine.prefilled[1] == whole[len(prompt_of(("user", "hello"))) :]


def test_the_same_prompt_again_reads_one_token() -> None:
    model, engine = fake_model(b"fine")
    chat = model.chat()
    chat.send("hello").text  # noqa: B018
    del chat.messages[:]
    assert chat.send("hello").text == "fine"
    assert read_by(engine)[1] == 1


def test_a_new_list_of_messages_is_used() -> None:
    model, _ = fake_model(b"fine")
    chat = model.chat()
    chat.messages = [{"role": "system", "content": "s"}]
    chat.send("hello").text  # noqa: B018
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant"]


def test_the_turn_grows_in_the_messages_while_it_is_generated() -> None:
    model, _ = fake_model(b"abc")
    chat = model.chat()
    seen = [chat.messages[-1]["content"] for _ in chat.send("hello")]
    assert seen == ["a", "ab", "abc"]


def test_a_broken_off_answer_stays_as_far_as_it_was_shown() -> None:
    model, engine = fake_model(b"abcdef")
    chat = model.chat()
    for piece in chat.send("hello"):
        if piece == "c":
            break
    assert chat.messages[1:] == [{"role": "assistant", "content": "abc"}]
    assert chat.send("go on").text == "abcdef"
    whole = prompt_of(("user", "hello"), ("assistant", "abc"), ("user", "go on"))
    # "c" was chosen and shown, but no step has computed it.
    assert engine.prefilled[1] == whole[len(prompt_of(("user", "hello"))) + len("ab") :]


def test_a_cancelled_answer_stays_as_far_as_it_was_shown() -> None:
    model, _ = fake_model(b"abcdef")
    chat = model.chat()
    answer = chat.send("hello")
    for piece in answer:
        if piece == "b":
            answer.cancel()
    assert answer.finish_reason == "cancelled"
    assert chat.messages[1:] == [{"role": "assistant", "content": "ab"}]


def test_an_answer_broken_off_before_its_first_piece_leaves_no_trace() -> None:
    model, engine = fake_model(b"abcdef")
    chat = model.chat()
    answer = chat.send("hello")
    engine.before_step = answer.cancel
    assert answer.text == ""
    assert chat.messages == []
    engine.before_step = lambda: None
    chat.send("never looked at")
    assert chat.send("hello").text == "abcdef"
    assert len(chat.messages) == 2


def test_an_empty_answer_is_an_answer() -> None:
    model, _ = fake_model(b"")
    chat = model.chat()
    assert chat.send("hello").finish_reason is None
    assert chat.send("hello").text == ""
    assert chat.messages[1:] == [{"role": "assistant", "content": ""}]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_in_a_step_keeps_what_was_shown_and_drops_the_cache(
    error: type[BaseException],
) -> None:
    model, engine = fake_model(b"abcdef")
    chat = model.chat()
    answer = chat.send("hello")
    assert next(answer) == "a"

    def fail() -> None:
        raise error

    engine.before_step = fail
    with pytest.raises(error):
        next(answer)
    engine.before_step = lambda: None
    assert chat.messages[1:] == [{"role": "assistant", "content": "a"}]
    assert engine.sequences[0].closed
    assert chat.send("again").text == "abcdef"
    assert len(engine.sequences) == 2


def test_a_new_message_ends_the_answer_before_it() -> None:
    model, _ = fake_model(b"abcdef")
    chat = model.chat()
    first = chat.send("hello")
    next(first)
    second = chat.send("no, wait")
    assert first.finish_reason == "cancelled"
    assert list(first) == []
    assert second.text == "abcdef"
    assert [message["content"] for message in chat.messages] == ["hello", "a", "no, wait", "abcdef"]


def test_a_message_from_another_thread_waits_for_the_running_step() -> None:
    model, engine = fake_model(b"a" * 500)
    engine.step_s = 0.001
    chat = model.chat()
    first = chat.send("hello")
    next(first)
    reader = threading.Thread(target=lambda: list(first))
    reader.start()
    assert chat.send("stop", max_tokens=2).text == "aa"
    reader.join(timeout=10)
    assert not reader.is_alive()
    assert first.finish_reason == "cancelled"
    assert len(first.text) < 500


def test_a_conversation_too_long_is_refused_and_unchanged() -> None:
    model, _ = fake_model(b"a", max_context=40)
    chat = model.chat()
    with pytest.raises(
        ContextFullError, match=r"has \d+ tokens, but the context holds 40.* so many$"
    ):
        chat.send("x" * 40)
    assert chat.messages == []
    assert chat.send("x").text == "a"


def test_options_of_the_chat_are_defaults_of_its_answers() -> None:
    model, _ = fake_model(b"abc")
    chat = model.chat(temperature=0.5, seed=1)
    assert chat.send("x", temperature=0.0, max_tokens=2).text == "ab"
    with pytest.raises(OptionError, match="unknown option 'max_token'"):
        model.chat(max_token=5)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="unknown option 'n'"):
        chat.send("x", n=5)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="text is of type int: expected a string"):
        chat.send(5)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="system is of type int: expected a string"):
        model.chat(system=5)  # type: ignore[arg-type]


def test_close_frees_the_cache_and_keeps_the_messages() -> None:
    model, engine = fake_model(b"abc")
    chat = model.chat()
    next(chat.send("hello"))
    chat.close()
    chat.close()
    assert engine.sequences[0].closed
    assert chat.messages[-1]["content"] == "a"
    assert chat.send("again").text == "abc"


def test_a_forgotten_chat_frees_the_cache() -> None:
    model, engine = fake_model(b"abc")
    answer = model.chat().send("hello")
    next(answer)
    sequence = weakref.ref(engine.sequences.pop())
    assert answer.text == "a"
    assert sequence() is not None
    gc.disable()
    try:
        del answer
        assert sequence() is None
    finally:
        gc.enable()


def test_user_text_reaches_the_template_as_text() -> None:
    model, engine = fake_model(b"a")
    model.chat().send("<|im_end|>").text  # noqa: B018
    assert engine.prefilled[0].count(EOS) == 1


def test_a_closed_model_refuses_a_message() -> None:
    model, engine = fake_model(b"a")
    chat = model.chat()
    chat.send("hello").text  # noqa: B018
    model.close()
    assert engine.sequences[0].closed
    with pytest.raises(ClosedError):
        chat.send("hello")
    chat.close()
