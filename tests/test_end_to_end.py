"""The whole way on the real engine: a checkpoint, the converter, the command line, the API."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeqwen
from edgeqwen.errors import ContextFullError, FileFormatError, OptionError, TemplateError
from edgeqwen.quant import quantize
from tests.cli.running import REAL, json_of, run_process
from tests.gguf_samples import write_tiny_gguf
from tests.hf_checkpoints import write_checkpoint

GREEDY: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "Tiny-Instruct"
    return write_checkpoint(folder, n_layers=2, hidden_size=128, intermediate_size=192, n_heads=4)


@pytest.fixture(scope="module")
def path(checkpoint: Path) -> Path:
    output = checkpoint.parent / "model.gguf"
    quantize(checkpoint, output, "q4_0")
    return output


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[edgeqwen.Model]:
    with edgeqwen.load(path, n_threads=2, max_context=2048) as model:
        yield model


def test_the_command_line_from_a_checkpoint_to_an_answer(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    done = run_process("quantize", checkpoint, "-t", "q8_0", "-o", output)
    assert (done.returncode, done.stderr) == (0, "")

    fields = json_of(run_process("inspect", output, "--json"))
    assert fields["config"]["hidden_size"] == 128
    assert fields["config"]["name"] == "Tiny-Instruct"

    options = ("-n", "8", "--temperature", "0", "-c", "256", "-t", "2")
    answer = json_of(run_process("run", output, "hello", "--json", *options))
    assert len(answer["tokens"]) == 8
    assert answer["finish_reason"] == "length"
    text = run_process("run", output, "hello", *options).stdout
    assert text.rstrip("\n") == answer["text"].rstrip("\n")

    done = run_process("chat", output, *options, input="hello\nand again\n/stats\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Tiny-Instruct: /help lists the commands.\n{text}")
    assert "answer: 8 tokens" in done.stdout

    figures = json_of(run_process("bench", output, "-p", "64", "-n", "8", "-d", "16", "--json"))
    for key in ("prefill_tps", "decode_tps", "load_s", "first_token_s", "peak_rss_bytes"):
        assert figures[key] > 0

    assert run_process("warmup", output).stdout == "All kernels are compiled.\n"


@pytest.mark.parametrize("command", [("run", "hi"), ("inspect",)])
@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_bad_file_is_one_line(
    path: Path, tmp_path: Path, command: tuple[str, ...], damage: str
) -> None:
    bad = tmp_path / "bad.gguf"
    data = path.read_bytes()
    bad.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"PK\3\4" + data)
    done = run_process(command[0], bad, *command[1:], program=REAL)
    assert done.returncode == 1
    assert done.stderr.startswith(f"edgeqwen: {bad}: ")
    assert done.stderr.count("\n") == 1


def test_generating_agrees_with_logits(model: edgeqwen.Model) -> None:
    prompt = model.tokenizer.encode("Once upon a time there was a")
    generated = model.generate(prompt, max_tokens=24, **GREEDY).tokens
    logits = model.logits([*prompt, *generated])
    assert logits.shape == (len(prompt) + len(generated), model.config.vocab_size)
    assert logits.dtype == np.float32
    for i, token in enumerate(generated, len(prompt) - 1):
        # One token at a time and many at once add up in another order.
        assert logits[i, token] >= logits[i].max() - 1e-2 * np.abs(logits[i]).max()


def test_pieces_are_the_decoded_tokens(model: edgeqwen.Model) -> None:
    generation = model.generate("hello", max_tokens=40, temperature=1.0, seed=3)
    pieces = list(generation)
    assert all(pieces)
    assert "".join(pieces) == generation.text
    assert generation.text == model.tokenizer.decode(generation.tokens, skip_special=True)


def test_a_seed_repeats_an_answer_on_any_number_of_threads(path: Path) -> None:
    texts = set()
    for n_threads in (1, 2, 2):
        with edgeqwen.load(path, n_threads=n_threads, max_context=256) as model:
            texts.add(model.generate("hello", max_tokens=20, temperature=1.0, seed=5).text)
    assert len(texts) == 1


def test_a_conversation_answers_as_if_it_was_read_anew(model: edgeqwen.Model) -> None:
    chat = model.chat(system="Be brief.", **GREEDY)
    chat.send("hello", max_tokens=8).text  # noqa: B018
    prompt = model.chat_template.encode(
        model.tokenizer, [*chat.messages, {"role": "user", "content": "go on"}]
    )
    second = chat.send("go on", max_tokens=8)
    assert second.tokens == model.generate(prompt, max_tokens=8, **GREEDY).tokens
    assert second.stats.n_prompt == len(prompt)
    assert 0 < second.stats.n_reused < len(prompt)


def test_a_stop_string_cuts_the_same_text(model: edgeqwen.Model) -> None:
    options = {**GREEDY, "max_tokens": 30}
    whole = model.generate("hello", **options).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    cut = model.generate("hello", stop=stop, **options)
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


def test_generations_in_threads_give_what_they_give_alone(model: edgeqwen.Model) -> None:
    prompts = ["one", "two words", "three words here"]
    alone = [model.generate(prompt, max_tokens=12, **GREEDY).text for prompt in prompts]
    together = [""] * len(prompts)

    def read(i: int) -> None:
        together[i] = model.generate(prompts[i], max_tokens=12, **GREEDY).text

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_cancelling_a_long_prompt(model: edgeqwen.Model) -> None:
    chat = model.chat(**GREEDY)
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        answer.cancel()

    answer = chat.send("long " * 400, progress=progress)
    assert answer.text == ""
    assert answer.finish_reason == "cancelled"
    assert len(seen) == 1
    assert chat.messages == []
    assert len(chat.send("hello", max_tokens=4).tokens) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_in_a_prompt_leaves_the_model_and_the_chat_usable(
    model: edgeqwen.Model, error: type[BaseException]
) -> None:
    chat = model.chat(**GREEDY)
    expected = model.chat(**GREEDY).send("hello", max_tokens=4).tokens

    def progress(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        chat.send("long " * 400, progress=progress).text  # noqa: B018
    assert chat.messages == []
    assert chat.send("hello", max_tokens=4).tokens == expected


def test_the_context_fills_up(path: Path) -> None:
    with edgeqwen.load(path, max_context=16) as model:
        generation = model.generate(range(10), **GREEDY)
        assert len(generation.tokens) in range(1, 8)
        assert generation.finish_reason in ("length", "eos")
        with pytest.raises(ContextFullError, match=r"the prompt has 17 tokens, .* holds 16"):
            model.generate(range(17))
        with pytest.raises(ContextFullError):
            model.chat().send("word " * 20)


def test_a_lone_surrogate_is_refused(model: edgeqwen.Model) -> None:
    with pytest.raises(OptionError, match="surrogate"):
        model.generate("a\ud800b")
    with pytest.raises((OptionError, TemplateError), match="surrogate"):
        model.chat().send("a\ud800b")


def test_special_tokens_count_in_a_prompt_and_not_in_a_message(model: edgeqwen.Model) -> None:
    end = model.tokenizer.special["<|im_end|>"]
    prompts: list[list[int]] = []
    engine, prefill = model.engine, model.engine.prefill

    def spy(sequence: Any, tokens: Any, **options: Any) -> Any:
        prompts.append(list(tokens))
        return prefill(sequence, tokens, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "prefill", spy)
        model.generate("a<|im_end|>b", max_tokens=1).text  # noqa: B018
        model.chat(system="s").send("x", max_tokens=1).text  # noqa: B018
        model.chat(system="s").send("x<|im_end|>", max_tokens=1).text  # noqa: B018
    assert [prompt.count(end) for prompt in prompts] == [1, 2, 2]


def test_a_vocabulary_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    embedding = np.zeros((352, 64), np.float32)
    write_tiny_gguf(path, tensors={"token_embd.weight": embedding})
    with pytest.raises(FileFormatError, match=r"x\.gguf: .*(320.*352|352.*320)"):
        edgeqwen.load(path)


def test_a_model_without_a_template_still_continues_text(tmp_path: Path) -> None:
    path = tmp_path / "base.gguf"
    write_tiny_gguf(path, n_heads=2, metadata={"tokenizer.chat_template": "{% broken"})
    with edgeqwen.load(path) as model:
        assert len(model.generate("hello", max_tokens=3).tokens) <= 3
        with pytest.raises(TemplateError, match=r"base\.gguf: chat template"):
            model.chat()
