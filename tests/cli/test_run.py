"""``edgeqwen run``: one answer, as text and as JSON."""

from pathlib import Path

import pytest

from tests.cli.running import json_of, run


def test_prints_the_answer() -> None:
    done = run("run", "x.gguf", "hello", answer="fine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_does_not_double_the_last_newline() -> None:
    assert run("run", "x.gguf", "hello", answer="fine\n").stdout == "fine\n"


def test_json() -> None:
    done = run("run", "x.gguf", "hi", "--json", "-n", "3", answer="5 €\x1b")
    assert done.stdout.isascii()
    fields = json_of(done)
    assert fields["text"] == "5 \ufffd"
    assert fields["finish_reason"] == "length"
    assert fields["tokens"] == [*b"5 \xe2"]
    assert fields["n_generated"] == 3
    assert fields["n_reused"] == 0
    for key in ("prefill_s", "decode_s", "first_token_s", "prefill_tps", "decode_tps"):
        assert fields[key] > 0


def test_reads_the_prompt_from_standard_input() -> None:
    from_pipe = json_of(run("run", "x.gguf", "-", "--json", input="hellö"))
    assert from_pipe["n_prompt"] == len(b"user\nhell\xc3\xb6") + len(b"assistant\n") + 4


def test_a_full_context_is_told() -> None:
    done = run("run", "x.gguf", "hello", "-c", "60", answer="a" * 100)
    assert (done.returncode, done.stdout) == (0, "a" * 37 + "\n")
    expected = "edgeqwen: cut after 37 tokens: the context is full; --context sets a longer one\n"
    assert done.stderr == expected
    assert run("run", "x.gguf", "hello", "-n", "37", answer="a" * 100).stderr == ""


def test_raw_continues_the_text() -> None:
    assert json_of(run("run", "x.gguf", "12345", "--raw", "--json"))["n_prompt"] == 5


def test_raw_and_a_system_prompt_exclude_each_other() -> None:
    done = run("run", "x.gguf", "hi", "--raw", "--system", "s")
    assert done.returncode == 2
    assert "a system prompt needs the chat template" in done.stderr


def test_the_system_prompt_and_stop_strings_are_used() -> None:
    options = ("--system", "abc", "--stop", "y", "--stop", "z")
    done = run("run", "x.gguf", "hi", "--json", *options, answer="uvwxyz")
    fields = json_of(done)
    assert (fields["text"], fields["finish_reason"]) == ("uvwx", "stop")
    assert fields["n_prompt"] == len(b"system\nabc") + len(b"user\nhi") + len(b"assistant\n") + 7


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--temperature", "-1", 1),
        ("--temperature", "warm", 2),
        ("--max-tokens", "0", 2),
        ("--threads", "0", 2),
        ("--unknown", "1", 2),
    ],
)
def test_senseless_options(option: str, value: str, code: int) -> None:
    done = run("run", "x.gguf", "hi", option, value)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_empty_prompt_is_an_error() -> None:
    done = run("run", "x.gguf", "", "--raw")
    assert done.returncode == 1
    assert done.stderr == "edgeqwen: prompt is empty: give at least one token\n"


def test_a_single_argument_is_the_prompt() -> None:
    fields = json_of(run("run", "hi", "--json"))
    assert fields["n_prompt"] == json_of(run("run", "x.gguf", "hi", "--json"))["n_prompt"]
    from_pipe = json_of(run("run", "-", "--json", input="hi"))
    assert from_pipe["n_prompt"] == fields["n_prompt"]


def test_a_file_alone_is_no_prompt(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.touch()
    done = run("run", path, COLUMNS="300")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path} is a file, and the prompt is missing: edgeqwen run MODEL PROMPT" in done.stderr


def test_a_folder_alone_is_no_prompt(tmp_path: Path) -> None:
    done = run("run", tmp_path, COLUMNS="400")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        f"{tmp_path} is a folder, expected a GGUF file (edgeqwen quantize makes one of a "
        "checkpoint), and the prompt is missing: edgeqwen run MODEL PROMPT"
    ) in done.stderr


@pytest.mark.parametrize("name", ["nosuch.gguf", "folder/NOSUCH.GGUF"])
def test_a_file_that_is_missing_is_no_prompt(name: str) -> None:
    done = run("run", name, COLUMNS="300")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name}: no such file, and the prompt is missing: edgeqwen run MODEL" in done.stderr


def test_a_question_may_end_in_the_name_of_a_file() -> None:
    assert run("run", "How do I chat with model.gguf", answer="so").stdout == "so\n"


def test_a_hyphen_is_standard_input_even_where_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "-").touch()
    monkeypatch.chdir(tmp_path)
    assert run("run", "-", input="hi", answer="fine").stdout == "fine\n"


def test_a_prompt_without_quotes() -> None:
    done = run("run", "x.gguf", "Why", "is", "it?", COLUMNS="300")
    assert (done.returncode, done.stdout) == (2, "")
    assert "4 arguments, expected [MODEL] PROMPT: put a prompt of several words" in done.stderr
