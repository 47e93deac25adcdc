"""Model and the package itself: closing, threads, logits, exported names, and a cheap import."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import edgeqwen
from edgeqwen.errors import ClosedError, ContextFullError, EdgeqwenError, OptionError
from tests.fakes import VOCAB_SIZE, fake_model


def test_import_is_cheap() -> None:
    code = (
        "import sys, threading, edgeqwen, edgeqwen.cli\n"
        "heavy = {'numba', 'llvmlite', 'numpy', 'tokenizers', 'jinja2', 'typer', 'rich', 'gguf'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count(), dir(edgeqwen))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("[] 1 ")
    assert "'load'" in done.stdout


def test_every_exported_name_is_there() -> None:
    for name in edgeqwen.__all__:
        assert getattr(edgeqwen, name) is not None
        assert name in dir(edgeqwen)
    with pytest.raises(AttributeError, match="module 'edgeqwen' has no attribute 'lod'"):
        edgeqwen.lod  # type: ignore[attr-defined]  # noqa: B018


def test_close_is_idempotent_and_final() -> None:
    model, engine = fake_model(b"abc")
    with model as entered:
        assert entered is model
        assert repr(model) == "<Model fake.gguf: 1 layers>"
    model.close()
    assert engine.closed
    assert repr(model) == "<Model fake.gguf: closed>"
    for use in (
        lambda: model.generate("x"),
        lambda: model.chat(),
        lambda: model.logits([1]),
    ):
        with pytest.raises(ClosedError, match=r"fake\.gguf was closed"):
            use()


def test_close_frees_the_caches_of_running_generations() -> None:
    model, engine = fake_model(b"abc")
    generations = [model.generate("x") for _ in range(3)]
    for generation in generations:
        next(generation)
    model.close()
    assert all(sequence.closed for sequence in engine.sequences)
    for generation in generations:
        generation.close()


def test_close_waits_for_the_step_of_another_thread() -> None:
    model, engine = fake_model(b"a" * 900)
    engine.step_s = 0.002
    generation = model.generate("x")
    next(generation)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            list(generation)
        except ClosedError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    model.close()
    reader.join(timeout=10)
    assert len(errors) == 1


@pytest.mark.parametrize("use", ["close", "generate", "logits"])
def test_a_callback_that_uses_the_model_is_told_so_instead_of_waiting_for_itself(use: str) -> None:
    model, _ = fake_model(b"abc")
    calls = {
        "close": model.close,
        "generate": lambda: model.generate("y").text,
        "logits": lambda: model.logits([1]),
    }
    with pytest.raises(EdgeqwenError, match=r"fake\.gguf is in the middle of a step: .* cancel"):
        model.generate("x", progress=lambda done, total: calls[use]()).text  # noqa: B018
    assert model.generate("x").text == "abc"


def test_threads_take_turns() -> None:
    model, engine = fake_model(b"a" * 100)
    engine.step_s = 0.0005
    order: list[int] = []

    def read(i: int) -> None:
        order.extend(i for _ in model.generate("x"))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert [order.count(i) for i in range(3)] == [100] * 3
    # Nobody is done before the others have come a good part of the way.
    first_done = min(max(k for k, i in enumerate(order) if i == j) for j in range(3))
    assert all(order[: first_done + 1].count(i) > 30 for i in range(3))


def test_generations_of_one_thread_interleave() -> None:
    model, _ = fake_model(b"abc")
    pairs = list(zip(model.generate("x"), model.generate("y"), strict=True))
    assert pairs == [("a", "a"), ("b", "b"), ("c", "c")]


def test_logits() -> None:
    model, engine = fake_model(b"")
    logits = model.logits([3, 5])
    assert logits.shape == (2, VOCAB_SIZE)
    assert logits.dtype == np.float32
    assert engine.sequences[0].closed


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([], OptionError, "tokens is empty: give at least one token"),
        ("text", OptionError, r"tokens is of type str: .*model.tokenizer.encode\(text\) makes one"),
        ([VOCAB_SIZE], OptionError, r"tokens\[0\] is 260"),
        ([1] * 9, ContextFullError, "the prompt has 9 tokens, but the context holds 8"),
    ],
)
def test_logits_of_senseless_tokens(
    tokens: list[int], error: type[Exception], message: str
) -> None:
    model, engine = fake_model(b"", max_context=8)
    with pytest.raises(error, match=message):
        model.logits(tokens)
    assert not engine.sequences


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_threads": 0}, "n_threads is 0: expected a whole number of at least 1"),
        ({"n_threads": True}, "n_threads is True"),
        ({"max_context": "4k"}, "max_context is '4k'"),
        ({"max_context": -1}, "max_context is -1"),
    ],
)
def test_load_refuses_senseless_options_before_it_opens_the_file(
    options: dict[str, int], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        edgeqwen.load("no such file.gguf", **options)


def test_the_memory_of_a_context() -> None:
    model, _ = fake_model(max_context=500)
    assert model.cache_bytes(10) == 10 * 4000
    assert model.cache_bytes() == 500 * 4000
    with pytest.raises(OptionError, match="n_tokens is 0: expected a whole number"):
        model.cache_bytes(0)
