"""``edgeqwen compare``: what it prints, what it reads, and what it refuses, on two fake models."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import edgeqwen
from tests.cli import fake_program
from tests.cli.running import Terminal, environment, json_of, run
from tests.engines import write_model
from tests.fakes import VOCAB_SIZE, FakeEngine

# Only what the text tells of the models.
FAST = ("--no-speed", "-p", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two true files, whose sizes are told: the models themselves are fake."""
    folder = tmp_path_factory.mktemp("compare")
    write_model(folder / "a.gguf", n_layers=1)
    write_model(folder / "b.gguf", n_layers=1, types="Q4_0")
    (folder / "text.txt").write_bytes(b"\xef\xbb\xbfaabbb")
    (folder / "long.txt").write_text("ab" * 100)
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


Change = Callable[[FakeEngine], None]


@pytest.fixture
def of_b(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Changes the engine of the file b.gguf."""

    def change_b(change: Change) -> None:
        load = fake_program.load

        def changed(path: Any, **options: Any) -> edgeqwen.Model:
            model = load(path, **options)
            if Path(path).name == "b.gguf":
                change(model.engine)  # type: ignore[arg-type]
            return model

        monkeypatch.setattr(fake_program, "load", changed)

    return change_b


def surer(engine: FakeEngine) -> None:
    """Lets a model give twice the logits."""
    logits = engine.logits
    engine.logits = lambda *arguments: 2 * logits(*arguments)  # type: ignore[method-assign]


# Of a token that is the one before, and of any other: A's and B's negative log likelihood.
A_HIT, B_HIT = (math.log(math.exp(x) + VOCAB_SIZE - 1) - x for x in (1, 2))
A_MISS, B_MISS = A_HIT + 1, B_HIT + 2
KL = (B_HIT - A_HIT) * math.exp(-A_HIT) + (B_MISS - A_MISS) * (1 - math.exp(-A_HIT))


def test_json(of_b: Callable[[Change], None]) -> None:
    of_b(surer)
    done = run("compare", "a.gguf", "b.gguf", "-f", "text.txt", "--json", answer="Hello!")
    assert done.stderr == ""
    fields = json_of(done)
    a, b = fields.pop("a"), fields.pop("b")
    for side, name in ((a, "a.gguf"), (b, "b.gguf")):
        assert side.pop("path") == name
        assert side.pop("file_bytes") == Path(name).stat().st_size
        for key in ("prefill_tps", "decode_tps"):
            samples = side.pop(f"{key}_samples")
            assert side.pop(key) == sorted(samples)[1] > 0
    assert a.pop("bits_per_weight") == 32
    assert 4 < b.pop("bits_per_weight") < 6
    answer = {"text": "Hello!", "finish_reason": "eos", "tokens": [*b"Hello!"]}
    for side, hit, miss in ((a, A_HIT, A_MISS), (b, B_HIT, B_MISS)):
        mean, error = (3 * hit + miss) / 4, (miss - hit) / 4
        assert side == {
            "mean_nll": pytest.approx(mean),
            "mean_nll_se": pytest.approx(error),
            "perplexity": pytest.approx(math.exp(mean)),
            "perplexity_se": pytest.approx(math.exp(mean) * error),
            "answer": answer,
        }
    change = (3 * (B_HIT - A_HIT) + B_MISS - A_MISS) / 4
    hit, miss = (math.exp(-y) - math.exp(-x) for x, y in ((A_HIT, B_HIT), (A_MISS, B_MISS)))
    assert fields.pop("elapsed_s") > 0
    assert fields.pop("p_change_rms_se") > 0
    assert fields == {
        "n_tokens": 5,
        "n_scored": 4,
        "context": 512,
        "stride": 256,
        "n_vocab": VOCAB_SIZE,
        "nll_change": pytest.approx(change),
        "nll_change_se": pytest.approx((B_MISS - A_MISS - B_HIT + A_HIT) / 4),
        "nll_correlation": pytest.approx(1),
        "perplexity_ratio": pytest.approx(math.exp(change)),
        "perplexity_ratio_se": pytest.approx(math.exp(change) / 4),
        "kl": pytest.approx(KL),
        "kl_se": pytest.approx(0, abs=1e-9),
        "kl_median": pytest.approx(KL),
        "kl_p90": pytest.approx(KL),
        "kl_p99": pytest.approx(KL),
        "kl_p99_9": pytest.approx(KL),
        "kl_max": pytest.approx(KL),
        "same_top": 1.0,
        "same_top_se": 0.0,
        "p_change": pytest.approx((3 * hit + miss) / 4),
        "p_change_se": pytest.approx((hit - miss) / 4),
        "p_change_rms": pytest.approx(math.sqrt((3 * hit**2 + miss**2) / 4)),
        "n_prompt": 512,
        "n_generate": 64,
        "n_threads": 1,
        "prompt": "What does it cost to store a model in fewer bits?",
        "n_same_tokens": 6,
    }


def test_text(of_b: Callable[[Change], None]) -> None:
    of_b(surer)
    done = run("compare", "a.gguf", "b.gguf", "-f", "text.txt", "-c", "4", "-p", "Hi", answer="Ho")
    assert (done.returncode, done.stderr) == (0, "")
    text, speed, prompt, *answers = done.stdout.split("\n\n", 1)[1].split("\n\n")
    a, b, tokens = done.stdout.split("\n\n")[0].splitlines()
    assert a.startswith("A                  a.gguf: ")
    assert a.endswith(" KiB, 32.00 bits per weight")
    assert b.startswith("B                  b.gguf: ")
    assert tokens == (
        "tokens             5, of which 4 were scored; windows of 4, stride 2; vocabulary 260"
    )
    assert text.splitlines() == [
        f"KL divergence      {KL:.6g} ± 0 nats per token, of B from A",
        f"  over the tokens  median {KL:.3g}, 90% up to {KL:.3g}, 99% {KL:.3g}, 99.9% {KL:.3g}, "
        f"maximum {KL:.3g}",
        "same first choice  100.000 ± 0.000% of the tokens",
        "perplexity of A    123.627 ± 30.9",
        "perplexity of B    59.4394 ± 29.7",
        "  B / A            0.480797 ± 0.12, its logarithm -0.732311 ± 0.25",
        "change of p        +1.300 ± 0.435%, RMS 1.503 ± 0.250%: probability of the text's own "
        "tokens, B less A",
        "correlation        1.0000 of their log likelihoods",
    ]
    assert [line[:19] for line in speed.splitlines()] == [
        f"{label:<19}" for label in ("prefill 512", "decode 64")
    ]
    assert all(" tokens/s; B / A " in line for line in speed.splitlines())
    assert prompt == "prompt: Hi"
    assert answers == ["A:\nHo", "B:\nHo", "Both answers are the same.\n"]


def test_what_is_left_out() -> None:
    done = run("compare", "a.gguf", "b.gguf", "-f", "text.txt", *FAST)
    assert "tokens/s" not in done.stdout
    assert "prompt" not in done.stdout
    assert done.stdout.endswith("of their log likelihoods\n\n")
    fields = json_of(run("compare", "a.gguf", "b.gguf", "-f", "text.txt", *FAST, "--json"))
    assert fields["prompt"] == ""
    assert fields["n_same_tokens"] is None
    for side in (fields["a"], fields["b"]):
        speeds = [
            side[f"{key}_tps{end}"] for key in ("prefill", "decode") for end in ("", "_samples")
        ]
        assert [*speeds, side["answer"]] == [None] * 5


def test_answers_that_differ(of_b: Callable[[Change], None]) -> None:
    def say(engine: FakeEngine) -> None:
        engine.script = [*b"one two five"]

    of_b(say)
    options = ("-f", "text.txt", "--no-speed", "-n", "9")
    done = run("compare", "a.gguf", "b.gguf", *options, answer="one two four")
    assert done.stdout.endswith(
        "A:\none two f\n\nB:\none two f\n\nBoth answers are the same.\n"  # the first 9 tokens
    )
    options = ("-f", "text.txt", "--no-speed")
    done = run("compare", "a.gguf", "b.gguf", *options, answer="one two four")
    assert done.stdout.endswith(
        "\n\nThey differ from token 10 on: A goes on 'four' and B goes on 'five'.\n"
    )
    fields = json_of(run("compare", "a.gguf", "b.gguf", *options, "--json", answer="one two four"))
    assert fields["n_same_tokens"] == 9
    assert [fields[side]["answer"]["text"] for side in "ab"] == ["one two four", "one two five"]


def test_prompts_are_read_with_the_chat_template_or_raw(of_b: Callable[[Change], None]) -> None:
    engines: list[FakeEngine] = []
    of_b(engines.append)
    for more in ((), ("--raw",)):
        run("compare", "a.gguf", "b.gguf", "-f", "text.txt", "--no-speed", "-p", "Hi", *more)
    chat, raw = (bytes(t for t in engine.prefilled[-1] if t < 256) for engine in engines)
    assert chat == b"user\nHi\nassistant\n"
    assert raw == b"Hi"


def test_answers_are_greedy_whatever_the_files_recommend(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    generate = edgeqwen.Model.generate

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(options)
        return generate(self, *arguments, **options)

    monkeypatch.setattr(edgeqwen.Model, "generate", watched)
    run("compare", "a.gguf", "b.gguf", "-f", "text.txt", "--no-speed", "--raw", "-n", "5")
    assert asked == 2 * [
        {
            "max_tokens": 5,
            "temperature": 0,
            "repetition_penalty": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
        }
    ]


def test_the_built_in_text_is_read_with_special_tokens() -> None:
    with mock.patch("edgeqwen.guide.held_out_text", return_value="<|im_start|>user\n"):
        fields = json_of(run("compare", "a.gguf", "b.gguf", *FAST, "--json"))
    assert fields["n_tokens"] == 6
    options = ("compare", "a.gguf", "b.gguf", *FAST, "--json", "-f", "-")
    for more, n in (((), 16), (("--special",), 5)):
        assert json_of(run(*options, *more, input="<|im_start|>user"))["n_tokens"] == n


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.gguf", "nothing.gguf"), "nothing.gguf: "),
        (("text.txt", "b.gguf"), "text.txt: "),
        (("a.gguf", "b.gguf", "-f", "nothing.txt"), "nothing.txt: No such file or directory"),
        (("a.gguf", "b.gguf", "-f", "a.gguf"), "a.gguf: byte "),
        (
            ("a.gguf", "b.gguf", "-f", "text.txt", "-c", "1001"),
            "the window has 1001 tokens: expected 2 to 1000",
        ),
        (("a.gguf", "b.gguf", "-f", "text.txt", "-p", "x" * 1001), "the prompt has "),
    ],
)
def test_an_error_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = run("compare", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"edgeqwen: {message}")
    assert done.stderr.count("\n") == 1


def test_the_file_whose_logits_are_no_numbers_is_named(of_b: Callable[[Change], None]) -> None:
    def overflow(engine: FakeEngine) -> None:
        engine.logits = lambda _, tokens: np.full(  # type: ignore[method-assign]
            (len(tokens), VOCAB_SIZE), np.inf, np.float32
        )

    of_b(overflow)
    done = run("compare", "a.gguf", "b.gguf", "-f", "text.txt")
    assert done.stderr.startswith("edgeqwen: b.gguf's logits are no numbers: some are infinite")


def test_a_file_that_is_missing_is_noticed_before_numba_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from edgeqwen.cli import main\n"
        "try: main()\n"
        "except SystemExit as leaving: print(leaving.code, 'numba' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", "a.gguf", str(tmp_path / "nothing.gguf")],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert done.stdout == "1 False\n"
    assert done.stderr.startswith(f"edgeqwen: {tmp_path / 'nothing.gguf'}: ")


def press_ctrl_c(when: Callable[[FakeEngine], bool]) -> Change:
    """Presses Ctrl-C once, at the beginning of the first step at which ``when`` is true."""

    def change(engine: FakeEngine) -> None:
        pressed = False

        def before_step() -> None:
            nonlocal pressed
            if not pressed and when(engine):
                pressed = True
                signal.raise_signal(signal.SIGINT)

        engine.before_step = before_step

    return change


def test_ctrl_c_while_the_text_is_read(of_b: Callable[[Change], None]) -> None:
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    options = ("-f", "long.txt", "-c", "20")
    engines: list[FakeEngine] = []
    of_b(engines.append)
    of_b(press_ctrl_c(lambda engine: len(engine.sequences) == 3))
    done = run("compare", "a.gguf", "b.gguf", *options)
    assert (done.returncode, done.stderr) == (130, "")
    assert signal.getsignal(signal.SIGINT) is on_ctrl_c
    assert "tokens             200, of which 29 were scored" in done.stdout
    assert engines[0].n_decoded == 0
    assert "tokens/s" not in done.stdout
    assert "prompt" not in done.stdout


def test_ctrl_c_while_the_speed_is_measured(of_b: Callable[[Change], None]) -> None:
    # After the text, the first steps and a whole turn.
    of_b(press_ctrl_c(lambda engine: engine.n_decoded > 70))
    done = run("compare", "a.gguf", "b.gguf", "-f", "text.txt")
    assert (done.returncode, done.stderr) == (130, "")
    assert "decode 64          A " in done.stdout
    assert "prompt" not in done.stdout


def test_ctrl_c_while_the_answers_are_generated(of_b: Callable[[Change], None]) -> None:
    of_b(press_ctrl_c(lambda engine: engine.n_decoded == 3))
    done = run("compare", "a.gguf", "b.gguf", "-f", "text.txt", "--no-speed", answer="x" * 9)
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout.split("\n\n")[-3:] == [
        f"A:\n{'x' * 9}",
        "B:\nxxxx",
        f"They differ from token 5 on: A goes on '{'x' * 9}' and B goes on 'xxxx'.\n",
    ]


def test_ctrl_c_in_the_first_answer_leaves_out_the_second(of_b: Callable[[Change], None]) -> None:
    of_b(press_ctrl_c(lambda engine: engine.n_decoded == 3))
    options = ("-f", "text.txt", "--no-speed", "--json")
    done = run("compare", "b.gguf", "a.gguf", *options, answer="x" * 9)
    assert (done.returncode, done.stderr) == (130, "")
    fields = json.loads(done.stdout)
    one, other = (fields[side]["answer"] for side in "ab")
    assert (one["text"], one["finish_reason"]) == ("xxxx", "cancelled")
    assert other == {"text": "", "finish_reason": "cancelled", "tokens": []}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_at_a_terminal_the_answers_stand_side_by_side(folder: Path) -> None:
    files = (folder / "a.gguf", folder / "b.gguf")
    options = {"FAKE_SCRIPT": "one two", "COLUMNS": "80"}
    text = folder / "text.txt"
    with Terminal("compare", *files, "-f", text, "--no-speed", **options) as terminal:
        assert terminal.wait_for_end() == 0
    begin, end = terminal.output.index("prompt: "), terminal.output.index("Both answers are")
    row = terminal.output[begin:end].splitlines()[3]
    assert row.split() == ["one", "two", "one", "two"]
    assert row.rindex("one") == 40


@pytest.mark.parametrize("option", [("--stride", "0"), ("-c", "1"), ("-n", "0")])
def test_senseless_options(option: tuple[str, str]) -> None:
    done = run("compare", "a.gguf", "b.gguf", *option)
    assert (done.returncode, done.stdout) == (2, "")
    assert run("compare", "a.gguf").returncode == 2
