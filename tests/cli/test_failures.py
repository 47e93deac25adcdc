"""Errors: one line, an exit code, a traceback only when asked for."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from edgeqwen.cli import failures, terminal
from edgeqwen.errors import FileFormatError, OptionError
from tests.cli.running import REAL, ROOT, environment, run


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return failures.guarded(command)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileFormatError("x.gguf: is empty"), "x.gguf: is empty"),
        (OptionError("two\nlines\x1b[31m"), "two lines\\x1b[31m"),
        (FileNotFoundError(2, "no", "x.json"), "x.json: No such file or directory"),
        (OSError(28, "full", "o.gguf"), "o.gguf: No space left on device: free some space there"),
        (MemoryError(), "out of memory: a smaller model, "),
        (ZeroDivisionError("oh"), "unexpected ZeroDivisionError: oh; this is a fault of edgeqwen"),
        (OSError("odd"), "unexpected OSError: odd; this is a fault"),
    ],
)
def test_an_error_is_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as leaving:
        failing(error)()
    assert leaving.value.exit_code == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"edgeqwen: {line}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_long_message_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        failing(OptionError("[bold]long " * 50))()
    assert capsys.readouterr().err == f"edgeqwen: {'[bold]long ' * 50}\n"


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as leaving:
        failing(KeyboardInterrupt())()
    assert leaving.value.exit_code == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments", [("--debug", "inspect", "no.gguf"), ("inspect", "no.gguf", "--debug")]
)
def test_debug_shows_the_traceback(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("edgeqwen: no.gguf: no such file\n")


def test_debug_by_the_environment() -> None:
    assert "Traceback" in run("inspect", "no.gguf", EDGEQWEN_DEBUG="1").stderr
    assert "Traceback" not in run("inspect", "no.gguf", EDGEQWEN_DEBUG="0").stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("run",), ("inspect", "a", "b"), ("-x",)])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Usage: edgeqwen" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version_load_no_compiler() -> None:
    code = (
        "import sys\n"
        "from edgeqwen.cli import main\n"
        "try: main()\n"
        "except SystemExit as leaving: assert not leaving.code\n"
        "print(sorted({'numba', 'numpy', 'tokenizers', 'jinja2'} & set(sys.modules)))"
    )
    for arguments in (["--help"], ["chat", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.endswith("[]\n"), done.stderr
    assert done.stdout == "edgeqwen 0.1.0\n[]\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell and pipes")
def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "from edgeqwen.cli import failures, terminal\n"
        "import typer\n"
        "def command():\n"
        "    for i in range(100000): print('a line', i)\n"
        "try: failures.guarded(command)()\n"
        "except typer.Exit as leaving: raise SystemExit(leaving.exit_code)\n"
    )
    for shown in ("head -n 1", "true"):
        done = subprocess.run(
            [
                "bash",
                "-c",
                f'"$@" | {shown}; exit ${{PIPESTATUS[0]}}',
                "-",
                sys.executable,
                "-c",
                code,
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(),
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*REAL, "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "edgeqwen: No space left on device: free some space there\n"


def test_clean_keeps_text_and_shows_controls() -> None:
    assert terminal.clean("a\tb\nç 😀 \u200f") == "a\tb\nç 😀 \u200f"
    assert terminal.clean("\x1b[2J\x00\x7f\x85\x9d") == "\\x1b[2J\\x00\\x7f\\x85\\x9d"
    assert terminal.clean("a\r\nb\u2066c\u202e") == "a\nb\\u2066c\\u202e"
    assert terminal.clean_line("a\tb\nc") == "a\\x09b c"


def test_what_was_typed_becomes_valid_unicode() -> None:
    assert terminal.valid_unicode("größe 😀\x00") == "größe 😀\x00"
    assert terminal.valid_unicode("caf\udce9") == "caf\ufffd"
    assert terminal.valid_unicode("\ud800x\udc00") == "\ufffdx\ufffd"
