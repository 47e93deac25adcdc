"""``edgeqwen perplexity``: which text it reads and how, and what it prints."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import edgeqwen
from tests.cli import fake_program
from tests.cli.running import ROOT, Terminal, environment, json_of, run
from tests.fakes import VOCAB_SIZE

MISS = math.log(math.e + VOCAB_SIZE - 1)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfaabbb")  # a byte order mark is no part of the text
    return path


def test_json(text: Path) -> None:
    done = run("perplexity", "x.gguf", "-f", text, "--json")
    assert done.stderr == ""
    fields = json_of(done)
    assert fields.pop("elapsed_s") > 0
    assert fields.pop("read_tps") > 0
    assert fields == {
        "perplexity": pytest.approx(math.exp(MISS - 3 / 4)),
        "perplexity_se": pytest.approx(math.exp(MISS - 3 / 4) / 4),
        "mean_nll": pytest.approx(MISS - 3 / 4),
        "mean_nll_se": pytest.approx(0.25),
        "n_tokens": 5,
        "n_scored": 4,
        "n_windows": 1,
        "n_read": 4,
        "context": 512,
        "stride": 256,
    }


def test_text(text: Path) -> None:
    done = run("perplexity", "x.gguf", "-f", text, "-c", "4", "--stride", "3")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, speed = done.stdout.splitlines()
    assert lines == [
        "perplexity   123.627 ± 30.9",
        "mean NLL     4.81727 ± 0.25 nats per token",
        "tokens       5, of which 4 were scored",
        "windows      2 of 4 tokens, stride 3",
    ]
    assert speed.startswith("speed        ")


def test_what_is_unknown_is_null_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "two.txt"
    path.write_text("ab")
    fields = json_of(run("perplexity", "x.gguf", "-f", path, "--json"))
    assert (fields["mean_nll_se"], fields["perplexity_se"]) == (None, None)
    assert "±" not in run("perplexity", "x.gguf", "-f", path).stdout


def test_special_tokens_of_a_file_are_text_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_text("<|im_start|>user")
    plain, special = (
        json_of(run("perplexity", "x.gguf", "-f", path, "--json", *more))["n_tokens"]
        for more in ((), ("--special",))
    )
    assert (plain, special) == (16, 5)


def test_the_built_in_text_is_read_with_special_tokens() -> None:
    with mock.patch("edgeqwen.guide.held_out_text", return_value="<|im_start|>user\n"):
        fields = json_of(run("perplexity", "x.gguf", "--json"))
    assert fields["n_tokens"] == 6


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", (), "the text is too short: tokens has length 0, expected at least 2"),
        (b"a", (), "the text is too short: tokens has length 1, expected at least 2"),
        (b"abc", ("-c", "1001"), "the window has 1001 tokens: expected 2 to 1000, the model's "),
        (b"abc", ("-c", "5", "--stride", "6"), "stride is 6: expected 1 to 5, the window; "),
    ],
)
def test_an_error_is_one_line(
    tmp_path: Path, content: bytes, options: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    done = run("perplexity", "x.gguf", "-f", path, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"edgeqwen: {message}")
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_no_utf8_is_named_before_the_model_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 noir")
    done = run("perplexity", "-f", path)
    assert done.returncode == 1
    assert done.stderr == (
        f"edgeqwen: {path}: byte 3 is no UTF-8 (invalid continuation byte), expected a text "
        "in UTF-8; convert it\n"
    )
    done = run("perplexity", "-f", tmp_path / "nothing.txt")
    assert done.stderr == f"edgeqwen: {tmp_path / 'nothing.txt'}: No such file or directory\n"


def test_a_text_that_can_not_be_read_is_noticed_before_numba_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from edgeqwen.cli import main\n"
        "try: main()\n"
        "except SystemExit as leaving: print(leaving.code, 'numba' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "perplexity", "-f", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=60,
    )
    assert done.stdout == "1 False\n"
    assert done.stderr.startswith(f"edgeqwen: {tmp_path}: ")
    assert done.stderr.count("\n") == 1


def test_a_hyphen_reads_standard_input() -> None:
    fields = json_of(run("perplexity", "x.gguf", "-f", "-", "--json", input="\ufeffaäb\r\n"))
    assert fields["n_tokens"] == len("aäb\r\n".encode())
    done = run("perplexity", "x.gguf", "-f", "-", input="caf\udce9")
    assert done.returncode == 1
    assert done.stderr == (
        "edgeqwen: standard input: byte 3 is no UTF-8 (unexpected end of data), expected a text in "
        "UTF-8; convert it\n"
    )


def ctrl_c_at(step: int, monkeypatch: pytest.MonkeyPatch, *, times: int = 1) -> None:
    """Presses Ctrl-C so many times at the beginning of one of the fake model's steps."""
    load, steps = fake_program.load, iter(range(1000))

    def load_and_watch(path: Any, **options: Any) -> edgeqwen.Model:
        def before_step() -> None:
            if next(steps) == step:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

        model = load(path, **options)
        model.engine.before_step = before_step  # type: ignore[attr-defined]
        return model

    monkeypatch.setattr(fake_program, "load", load_and_watch)


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_ends_it_with_the_figures_so_far(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.txt"
    path.write_text("a" * 200)
    ctrl_c_at(1, monkeypatch)
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    done = run("perplexity", "x.gguf", "-f", path, *(["--json"] if as_json else []))
    assert (done.returncode, done.stderr) == (130, "")
    assert signal.getsignal(signal.SIGINT) is on_ctrl_c
    # The second step is finished, and of 32 tokens, too.
    if as_json:
        fields = json.loads(done.stdout)
        assert (fields["n_tokens"], fields["n_scored"]) == (200, 64)
        assert fields["mean_nll"] == pytest.approx(MISS - 1)
    else:
        assert "tokens       200, of which 64 were scored\n" in done.stdout


def test_a_second_ctrl_c_ends_it_at_once(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctrl_c_at(0, monkeypatch, times=2)
    done = run("perplexity", "x.gguf", "-f", text)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_at_a_terminal_it_shows_the_perplexity_so_far(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("a" * 900)
    options = {"FAKE_STEP_S": "0.5", "COLUMNS": "120"}
    with Terminal("perplexity", "x.gguf", "-f", path, **options) as terminal:
        terminal.wait_for(f"measuring: perplexity {math.exp(MISS - 1):.4g}")
        terminal.press("\x03")
        terminal.wait_for("tokens       900, of which ")
        assert terminal.wait_for_end() == 130
        assert "Traceback" not in terminal.output


@pytest.mark.parametrize("option", [("--stride", "0"), ("-c", "1"), ("-t", "0")])
def test_senseless_options(option: tuple[str, str]) -> None:
    done = run("perplexity", "x.gguf", *option)
    assert (done.returncode, done.stdout) == (2, "")
