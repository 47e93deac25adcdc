"""``edgeqwen chat``: at a terminal, in a pipe, and with its streams closed."""

import os
import signal
import subprocess
import sys
import time
from typing import Any
from unittest import mock

import pytest

from edgeqwen import Chat, Model
from tests.cli import fake_program
from tests.cli.running import FAKE, ROOT, Terminal, environment, run, run_process

HELLO = "fake: /help lists the commands.\n"
terminal_only = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


def chat_with(input: str, *options: str, answer: str = "") -> list[str]:
    done = run("chat", "x.gguf", *options, input=input, answer=answer)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    return done.stdout.splitlines()


def test_answers_every_line_of_a_pipe() -> None:
    lines = chat_with("hello\n\nhow are you?", answer="fine")
    assert lines == ["fake: /help lists the commands.", "fine", "fine"]


def test_empty_input_is_a_hello_and_no_more() -> None:
    assert chat_with("") == ["fake: /help lists the commands."]


def test_obeys_commands() -> None:
    lines = chat_with(
        "/stats\n/regen\n/system  be nice \n/help\nhello\n/regen\n/stats\n"
        "/clear\n/nonsense\n/quit\nx\n",
        "-n",
        "2",
        answer="fine",
    )
    assert lines[1:4] == [
        "There is no answer yet.",
        "There is no answer yet.",
        "A new conversation begins, with this system prompt.",
    ]
    assert lines[4].startswith("/help")
    # The same prompt again: everything but its last token was in the cache.
    assert (lines[-6], lines[-4]) == ("fi", "fi")
    assert lines[-3].startswith("prompt: 1 tokens read and 40 reused, ")
    assert "; answer: 2 tokens, " in lines[-3]
    assert lines[-2:] == [
        "The conversation is forgotten.",
        "There is no command /nonsense; /help lists them.",
    ]


@pytest.mark.parametrize(
    ("own", "options", "temperature"),
    [
        (0.0, (), 0.7),
        (0.9, ("--temperature", "0"), 0.7),
        (0.9, (), None),
        (0.0, ("--temperature", "0.2"), None),
    ],
)
def test_regen_at_temperature_0_takes_another_and_says_so(
    own: float,
    options: tuple[str, ...],
    temperature: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = fake_program.load

    def load_with_own(path: Any, **others: Any) -> Model:
        model = load(path, **others)
        model.sampling = model.sampling.replace(temperature=own)
        return model

    monkeypatch.setattr(fake_program, "load", load_with_own)
    with (
        mock.patch.object(Chat, "send", autospec=True, side_effect=Chat.send) as send,
        mock.patch.object(Chat, "regenerate", autospec=True, side_effect=Chat.regenerate) as again,
    ):
        lines = chat_with("hello\n/regen\n", *options, answer="fine")
    first, second = send.call_args.kwargs, again.call_args.kwargs
    assert "temperature" not in first
    assert second.get("temperature") == temperature
    said = "At temperature 0 the same answer would come again: this one is at temperature 0.7."
    assert lines[1:] == ["fine", *([said] if temperature else []), "fine"]


def test_the_last_message_is_changed_and_taken_back() -> None:
    lines = chat_with(
        "/edit x\n/undo\none\ntwo\n/edit\n/edit three\n/stats\n/undo\n/undo\n/undo\n", answer="fine"
    )
    assert lines[1:7] == [
        "There is no message yet.",
        "There is no message yet.",
        "fine",
        "fine",
        "/edit TEXT: what should it be?",
        "fine",
    ]
    # "<|im_start|>user\n", one message and its answer are what the second turn still shares.
    assert lines[7].startswith("prompt: ")
    assert int(lines[7].split(" reused")[0].split()[-1]) > 20
    assert lines[8:] == [
        "The last message and its answer are forgotten.",
        "The last message and its answer are forgotten.",
        "There is no message yet.",
    ]


def test_control_characters_of_the_model_are_made_harmless() -> None:
    lines = chat_with("hello\n", answer="\x1b]0;title\x07red\x9b31m\r\u202etxt\n\tend")
    assert lines[1:] == ["\\x1b]0;title\\x07red\\x9b31m\\u202etxt", "\tend"]


def test_invalid_utf8_in_the_input_is_replaced() -> None:
    done = subprocess.run(
        [*FAKE, "chat", "x.gguf"],
        input=b"caf\xe9\n",
        capture_output=True,
        cwd=ROOT,
        env=environment(FAKE_SCRIPT="ok"),
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"ok\n")


def test_a_terminal_that_can_not_show_a_character_shows_another() -> None:
    changes = {"FAKE_SCRIPT": "5 €", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run_process("chat", "x.gguf", program=FAKE, input="hello\n", **changes)
    assert (done.stdout, done.stderr) == (f"{HELLO}5 ?\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams by the shell")
@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *FAKE, "chat", "x.gguf"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("" if ">&- " in closed + " " and " >&-" in closed else HELLO)


def test_a_conversation_too_long_fails_in_a_pipe() -> None:
    done = run("chat", "x.gguf", "-c", "30", input="a long message\n")
    assert done.returncode == 1
    assert done.stderr.startswith("edgeqwen: the prompt has ")
    assert done.stderr.count("\n") == 1


def test_a_full_context_ends_an_answer_and_says_what_to_do() -> None:
    done = run("chat", "x.gguf", "-c", "60", input="hello\n", answer="a" * 100)
    assert (done.returncode, done.stdout) == (0, f"{HELLO}{'a' * 37}\n")
    assert done.stderr == (
        "(cut after 37 tokens: the context is full; /clear begins anew, --context sets a longer "
        "one, --context-shift goes on without the oldest turns)\n"
    )


def test_max_tokens_is_no_full_context() -> None:
    assert chat_with("hello\n", "-c", "60", "-n", "5", answer="a" * 100)[1:] == ["a" * 5]


def test_context_shift_forgets_turns_and_says_so() -> None:
    done = run("chat", "x.gguf", "-c", "170", "--context-shift", input="hello\n" * 8, answer="fine")
    assert (done.returncode, done.stdout) == (0, HELLO + "fine\n" * 8)
    assert done.stderr == "(the context was full: 3 earlier turns are forgotten)\n"
    text = f"hello\n{'x' * 20}\n"
    done = run("chat", "x.gguf", "-c", "60", "--context-shift", input=text, answer="fine")
    assert done.stdout == HELLO + "fine\n" * 2
    assert done.stderr == "(the context was full: an earlier turn is forgotten)\n"


@terminal_only
def test_a_message_too_long_for_the_context_at_a_terminal() -> None:
    with Terminal("chat", "x.gguf", "-c", "60", FAKE_SCRIPT="fine") as terminal:
        terminal.wait_for("> ")
        terminal.press("hello\n")
        terminal.wait_for("> ")
        terminal.press("x" * 60 + "\n")
        terminal.wait_for("(context_shift, --context-shift); /clear begins anew")
        terminal.wait_for("> ")


@terminal_only
def test_a_conversation_at_a_terminal() -> None:
    with Terminal("chat", "x.gguf", FAKE_SCRIPT="fine, größer 😀") as terminal:
        terminal.wait_for("> ")
        terminal.press("hällo 😀\n")
        terminal.wait_for("fine, größer 😀\r\n")
        terminal.wait_for("> ")
        terminal.press("/quit\n")
        assert terminal.wait_for_end() == 0


@terminal_only
def test_ctrl_d_leaves() -> None:
    with Terminal("chat", "x.gguf") as terminal:
        terminal.wait_for("> ")
        terminal.press("\x04")
        assert terminal.wait_for_end() == 0


@terminal_only
def test_ctrl_c_stops_an_answer_and_not_the_program() -> None:
    with Terminal("chat", "x.gguf", FAKE_SCRIPT="a" * 900, FAKE_STEP_S="0.01") as terminal:
        terminal.wait_for("> ")
        terminal.press("hello\n")
        terminal.wait_for("aaa")
        terminal.press("\x03")
        shown = terminal.wait_for("> ")
        assert shown.count("a") < 800
        terminal.press("/stats\n")
        terminal.wait_for("answer: ")
        terminal.wait_for("> ")
        # A Ctrl-C between readline's prompt and its waiting for input only counts with the next
        # key: no person is that fast.
        time.sleep(0.3)
        terminal.press("\x03")
        terminal.wait_for("(Ctrl-D or /quit leaves)")
        terminal.wait_for("> ")
        terminal.press("\x04")
        assert terminal.wait_for_end() == 0
        assert "Traceback" not in terminal.output


@terminal_only
def test_a_long_prompt_shows_how_far_it_is_and_cleans_up() -> None:
    with Terminal("chat", "x.gguf", FAKE_STEP_S="0.3", FAKE_SCRIPT="fine") as terminal:
        terminal.wait_for("> ")
        terminal.press("x" * 500 + "\n")
        terminal.wait_for("\r\x1b[Kreading the prompt: 259 of 519 tokens")
        terminal.press("\x03")
        terminal.wait_for("\r\x1b[K\r\n")
        terminal.wait_for("> ")
        terminal.press("y" * 550 + "\n")
        terminal.wait_for("reading the prompt: ")
        terminal.wait_for("\r\x1b[Kfine\r\n")


@terminal_only
def test_an_error_at_a_terminal_is_shown_and_the_conversation_goes_on() -> None:
    with Terminal("chat", "x.gguf", "-c", "40", FAKE_SCRIPT="a") as terminal:
        terminal.wait_for("> ")
        terminal.press("a message that is too long for it\n")
        terminal.wait_for("\x1b[31m")
        terminal.wait_for("the prompt has ")
        terminal.wait_for("> ")
        terminal.press("hi\n")
        terminal.wait_for("a\r\n")


@terminal_only
def test_tells_why_an_answer_was_cut() -> None:
    with Terminal("chat", "x.gguf", "-n", "3", "-c", "60", FAKE_SCRIPT="a" * 50) as terminal:
        terminal.wait_for("> ")
        terminal.press("hi\n")
        terminal.wait_for("aaa\r\n(cut after 3 tokens: --max-tokens)")


@terminal_only
@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_unwelcome(changes: dict[str, Any]) -> None:
    with Terminal("inspect", "no such file.gguf", **changes) as terminal:
        assert terminal.wait_for_end() == 1
        assert "no such file" in terminal.output
        assert "\x1b" not in terminal.output


@pytest.mark.skipif(not hasattr(os, "kill") or sys.platform == "win32", reason="needs signals")
def test_ctrl_c_in_a_pipe_ends_with_130() -> None:
    process = subprocess.Popen(
        [*FAKE, "chat", "x.gguf"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(FAKE_SCRIPT="a" * 900, FAKE_STEP_S="0.05"),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\nhello again\n")
    process.stdin.flush()
    while process.stdout.read(1) != "\n":
        pass
    assert process.stdout.read(1) == "a"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert output.strip("a") == "\n"
