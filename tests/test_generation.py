"""Generation: pieces, ends, limits, cancelling and statistics, on a fake engine."""

import gc
import threading
from typing import Any

import numpy as np
import pytest

from edgeqwen.errors import ClosedError, ContextFullError, OptionError
from tests.fakes import EOS, VOCAB_SIZE, fake_model


def test_yields_the_pieces_until_the_model_ends() -> None:
    model, engine = fake_model(b"Hello")
    generation = model.generate("Say hello")
    assert list(generation) == ["H", "e", "l", "l", "o"]
    assert generation.text == "Hello"
    assert generation.tokens == [*b"Hello"]
    assert generation.finish_reason == "eos"
    assert engine.prefilled == [[*b"Say hello"]]
    assert repr(generation) == "<Generation: 5 tokens, eos>"


def test_pieces_are_whole_characters() -> None:
    model, _ = fake_model("aé€😀".encode())
    assert list(model.generate("x")) == ["a", "é", "€", "😀"]


def test_a_character_cut_off_by_the_end_is_shown_as_replaced() -> None:
    model, _ = fake_model(b"a\xe2\x82")
    generation = model.generate("x")
    assert list(generation) == ["a", "\ufffd"]
    assert generation.text == "a\ufffd"


def test_text_runs_a_generation_that_was_not_iterated() -> None:
    model, _ = fake_model(b"abc")
    assert model.generate("x").text == "abc"
    assert model.generate("x").tokens == [*b"abc"]
    assert model.generate("x").stats.n_generated == 3


def test_text_inside_the_loop_is_what_there_is_so_far() -> None:
    model, _ = fake_model(b"abc")
    generation = model.generate("x")
    assert [(piece, generation.text, generation.finish_reason) for piece in generation] == [
        ("a", "a", None),
        ("b", "ab", None),
        ("c", "abc", None),
    ]


def test_the_prompt_may_be_text_or_ids() -> None:
    model, engine = fake_model(b"a")
    prompts: list[Any] = ["hi<|im_end|>", [*b"hi", EOS], (104, 105, EOS), np.array([104, 105, EOS])]
    for prompt in prompts:
        assert model.generate(prompt).text == "a"
    assert engine.prefilled == [[104, 105, EOS]] * 4


def test_max_tokens_ends_with_length() -> None:
    model, engine = fake_model(b"abcdef")
    generation = model.generate("x", max_tokens=3)
    assert (generation.text, generation.finish_reason) == ("abc", "length")
    assert engine.n_decoded == 2  # the last token chosen needs no step of its own


def test_stop_string_across_tokens() -> None:
    model, _ = fake_model(b"one\n\ntwo")
    generation = model.generate("x", stop="\n\n")
    assert list(generation) == ["o", "n", "e"]
    assert generation.finish_reason == "stop"
    assert generation.tokens == [*b"one\n\n"]


def test_text_held_back_for_a_stop_string_appears_at_the_end() -> None:
    model, _ = fake_model(b"ab#")
    generation = model.generate("x", stop=["##", "###"])
    assert list(generation) == ["a", "b", "#"]
    assert generation.finish_reason == "eos"
    assert model.generate("x", stop=["##"], max_tokens=3).text == "ab#"


def test_a_full_context_ends_with_length() -> None:
    model, engine = fake_model(b"a" * 100, max_context=10)
    generation = model.generate("12345678")
    # Eight of the prompt and two of the answer fill the cache; the third chosen needs no place.
    assert (generation.text, generation.finish_reason) == ("aaa", "length")
    assert engine.sequences[0].n_tokens == 10


def test_a_prompt_that_fills_the_context_still_gives_one_token() -> None:
    model, _ = fake_model(b"abc", max_context=8)
    assert model.generate("12345678").text == "a"


def test_a_prompt_longer_than_the_context_is_refused_at_once() -> None:
    model, engine = fake_model(b"a", max_context=8)
    with pytest.raises(
        ContextFullError, match=r"the prompt has 9 tokens, but the context holds 8: .*max_context=9"
    ):
        model.generate("123456789")
    assert not engine.sequences


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, r"prompt is empty: give at least one token"),
        ({"prompt": []}, r"prompt is empty"),
        ({"prompt": None}, r"prompt is None: expected a sequence of token ids"),
        ({"prompt": b"bytes"}, r"prompt is of type bytes"),
        ({"prompt": 5}, r"prompt is of type int"),
        ({"prompt": [1, "2"]}, r"prompt\[1\] is '2': expected a token id"),
        ({"prompt": [True]}, r"prompt\[0\] is True: expected a token id"),
        ({"prompt": [1.0]}, r"prompt\[0\] is 1.0: expected a token id"),
        ({"prompt": [VOCAB_SIZE]}, r"prompt\[0\] is 260: token ids of this model go from 0 to 259"),
        ({"prompt": [-1]}, r"prompt\[0\] is -1"),
        ({"max_tokens": 0}, r"max_tokens is 0: expected a whole number of at least 1"),
        ({"max_tokens": True}, r"max_tokens is True"),
        ({"max_tokens": "5"}, r"max_tokens is '5'"),
        ({"max_tokens": 2.5}, r"max_tokens is 2.5"),
        ({"stop": [""]}, r"stop holds '': expected strings of at least one character"),
        ({"stop": [5]}, r"stop holds 5"),
        ({"stop": 5}, r"stop is 5: expected a string or several"),
        ({"temprature": 1}, r"unknown option 'temprature': did you mean 'temperature'\?"),
        ({"beams": 1}, r"unknown option 'beams': known are temperature, top_k,"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": "high"}, "top_p"),
    ],
)
def test_senseless_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    model, engine = fake_model(b"a")
    with pytest.raises(OptionError, match=message):
        model.generate(**{"prompt": "x", **arguments})
    assert not engine.sequences


def test_none_means_the_default_of_the_file() -> None:
    model, _ = fake_model(b"a", temperature=0.0)
    assert model.generate("x", temperature=None, seed=None).text == "a"


def test_a_seed_repeats_an_answer() -> None:
    model, engine = fake_model(b"")
    engine._next = lambda sequence: np.zeros(VOCAB_SIZE, np.float32)  # type: ignore[method-assign]

    def draw(seed: int) -> list[int]:
        options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": seed}
        return model.generate("x", max_tokens=20, **options).tokens  # type: ignore[arg-type]

    assert draw(1) == draw(1) != draw(2)


def test_steps_are_told_which_logits_are_wanted() -> None:
    """Those that its sampler chooses from, with the penalties of that step."""
    model, engine = fake_model(b"abc")
    assert model.generate("xyz", top_k=7, temperature=1.0, repetition_penalty=1.5).text == "abc"
    assert [wanted.k for wanted in engine.wanted if wanted is not None] == [7, 7, 7]
    last = engine.wanted[-1]
    assert last is not None
    assert last.repetition == 1.5
    assert np.flatnonzero(last.penalised).tolist() == sorted([*b"abcxyz", EOS])
    engine.wanted.clear()
    assert model.generate("xyz", top_k=0, temperature=1.0).text == "abc"
    assert engine.wanted == [None, None, None]


def test_cancel_from_another_thread_ends_before_the_next_token() -> None:
    model, engine = fake_model(b"a" * 900)
    generation = model.generate("x")
    for n, _ in enumerate(generation, 1):
        if n == 5:
            thread = threading.Thread(target=generation.cancel)
            thread.start()
            thread.join()
    assert generation.text == "aaaaa"
    assert generation.finish_reason == "cancelled"
    assert engine.sequences[0].closed
    assert model.generate("x", max_tokens=2).text == "aa"


def test_cancel_while_the_prompt_is_read() -> None:
    model, engine = fake_model(b"abc")
    generation = model.generate("long prompt")
    engine.before_step = generation.cancel
    assert list(generation) == []
    assert generation.finish_reason == "cancelled"
    assert generation.stats.first_token_s is None
    assert len(engine.sequences[0].tokens) < len("long prompt")


def test_cancelled_before_it_began() -> None:
    model, engine = fake_model(b"abc")
    generation = model.generate("x")
    generation.cancel()
    assert generation.text == ""
    assert generation.finish_reason == "cancelled"
    assert not engine.prefilled


def test_a_cancelled_generation_shows_what_was_held_back() -> None:
    model, _ = fake_model(b"ab#cd")
    generation = model.generate("x", stop="##")
    for _ in generation:
        if generation.text == "ab":
            generation.cancel()
    assert generation.text == "ab"


def test_leaving_the_loop_frees_the_cache_at_once() -> None:
    model, engine = fake_model(b"abcdef")
    gc.disable()
    try:
        for _ in model.generate("x"):
            break
        assert engine.sequences[0].closed
    finally:
        gc.enable()


def test_close_ends_it_and_keeps_the_text() -> None:
    model, engine = fake_model(b"abcdef")
    generation = model.generate("x")
    next(generation)
    generation.close()
    generation.close()
    assert (generation.text, generation.finish_reason) == ("a", "cancelled")
    assert list(generation) == []
    assert engine.sequences[0].closed


def test_close_before_the_beginning() -> None:
    model, engine = fake_model(b"abcdef")
    generation = model.generate("x")
    generation.close()
    assert (generation.text, generation.finish_reason) == ("", "cancelled")
    assert not engine.sequences


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_a_step_leaves_the_model_usable(error: type[BaseException]) -> None:
    model, engine = fake_model(b"abcdef")
    generation = model.generate("x")
    next(generation)

    def fail() -> None:
        raise error

    engine.before_step = fail
    with pytest.raises(error):
        next(generation)
    engine.before_step = lambda: None
    assert (generation.text, generation.finish_reason) == ("a", "cancelled")
    assert engine.sequences[0].closed
    assert model.generate("x").text == "abcdef"


def test_statistics() -> None:
    model, engine = fake_model(b"abcdef")
    engine.step_s = 0.002
    generation = model.generate("prompt", max_tokens=4)
    stats = generation.stats
    assert (stats.n_prompt, stats.n_reused, stats.n_generated) == (6, 0, 4)
    assert stats.prefill_s >= 0.004  # two batches
    assert stats.decode_s >= 0.006  # three steps
    assert stats.first_token_s is not None
    assert stats.first_token_s >= stats.prefill_s
    assert stats.prefill_tps == pytest.approx(6 / stats.prefill_s)
    assert stats.decode_tps == pytest.approx(3 / stats.decode_s)


def test_statistics_of_a_single_token_have_no_decode_speed() -> None:
    model, _ = fake_model(b"a")
    assert model.generate("x", max_tokens=1).stats.decode_tps is None


def test_progress_of_the_prompt() -> None:
    model, _ = fake_model(b"a")
    calls: list[tuple[int, int]] = []
    assert model.generate("1234", progress=lambda *call: calls.append(call)).text == "a"
    assert calls == [(2, 4), (4, 4)]


def test_a_closed_model_ends_a_generation_with_an_error() -> None:
    model, _ = fake_model(b"abc")
    generation = model.generate("x")
    next(generation)
    model.close()
    with pytest.raises(ClosedError, match=r"fake.gguf was closed: load the model again to use it"):
        next(generation)
    assert generation.finish_reason == "cancelled"
