"""What the guide says of the command line is true, and nothing is left out."""

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from edgeqwen.cli import failures
from edgeqwen.perplexity import CONTEXT
from edgeqwen.quant import TYPES
from edgeqwen.sampling import SamplingOptions
from tests.tools.command_line import PROGRAM, code_spans, real_commands, real_options
from tools.guide_model.guide import COMMANDS, Topic, read_guide

ROOT = Path(__file__).resolve().parents[2]
GUIDE = read_guide()
SPANS = list(code_spans(GUIDE))
OPTIONS = real_options()
TOLD = {
    (command, frozenset(option.flags)): option
    for option in GUIDE.options
    for command in option.commands
}
# The numbers that take the place of an option that isn't given, where the command line has none.
LATER_DEFAULTS = {
    ("chat", "--kv"): 16,  # f16, unless a session has another type
    ("perplexity", "--context"): CONTEXT,
    ("compare", "--context"): CONTEXT,
    ("imatrix", "--context"): CONTEXT,
    **{
        (command, f"--{field.name.replace('_', '-')}"): field.default
        for command in ("chat", "run")
        for field in dataclasses.fields(SamplingOptions)
    },
}


def command_lines() -> list[tuple[Topic, list[str]]]:
    """Returns the words after "edgeqwen", up to a redirection, of every command line shown."""
    found = []
    for topic, span in SPANS:
        if match := re.fullmatch(r"(?:[A-Z_]+=\S+ )?(?:python -m )?edgeqwen( .*)?", span):
            found.append((topic, shlex.split((match[1] or "").partition(" < ")[0])))
    return found


def parse(words: list[str]) -> dict[str, Any] | None:
    """Returns a command's arguments, parsed but not run; None where help or a version is asked for.

    Raises typer's errors for wrong usage.
    """
    try:
        top = PROGRAM.make_context("edgeqwen", words)
        at = next(i for i, word in enumerate(words) if not word.startswith("-"))
        name = words[at]
        context = PROGRAM.commands[name].make_context(name, words[at + 1 :], parent=top)
    except typer.Exit:
        return None
    values: dict[str, Any] = context.params
    return values


def test_the_commands_are_those_of_the_program() -> None:
    assert sorted(COMMANDS) == sorted(["edgeqwen", *real_commands()])


def test_every_command_is_shown() -> None:
    assert set(PROGRAM.commands) <= {words[0] for _, words in command_lines() if words}


def test_every_option_is_told_and_none_is_invented() -> None:
    # The reader refuses an option that is told twice.
    assert set(TOLD) == {(option.command, option.flags) for option in OPTIONS}


@pytest.mark.parametrize("real", OPTIONS, ids=lambda o: f"{o.command} {max(o.flags, key=len)}")
def test_values_and_defaults_are_true(real: Any) -> None:
    told = TOLD[real.command, real.flags]
    assert (told.value == "") == real.is_switch
    if real.is_switch or real.is_required:
        assert told.default == ""
    elif real.default is not None:
        assert told.default == str(real.default)
    else:
        later = LATER_DEFAULTS.get((real.command, max(real.flags, key=len)))
        expected = [] if later is None else [f"{later:g}"]
        assert told.default != ""
        assert re.findall(r"\d+(?:\.\d+)?", told.default) == expected


@pytest.mark.parametrize(
    ("topic", "words"), command_lines(), ids=lambda p: p.id if isinstance(p, Topic) else ""
)
def test_command_lines_are_understood(
    topic: Topic, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parsing --debug alone asks for tracebacks from then on.
    monkeypatch.setattr(failures, "_asked_for_tracebacks", False)
    if not words:
        return  # The program that is only named.
    if words[0] == "COMMAND":
        words = ["chat", *words[1:]]
    if words[0] in PROGRAM.commands and len(words) == 1:
        return  # A command that is only named.
    values = parse(words)
    if values is not None and words[0] == "quantize":
        assert values["type"] in TYPES


@pytest.mark.parametrize("words", [["run"], ["quantize", "x", "-t", "f16"], ["bench", "--depht=3"]])
def test_wrong_usage_would_be_noticed(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"Missing|No such option"):
        parse(words)


def test_options_shown_alone_exist() -> None:
    flags = {flag for option in OPTIONS for flag in option.flags}
    shown = {span.split()[0] for _, span in SPANS if re.match("--?[a-z]", span)}
    assert shown
    assert shown <= flags


def test_the_commands_inside_a_chat_are_those_that_help_lists() -> None:
    source = (ROOT / "cli" / "conversation.py").read_text("utf-8")
    known = set(re.findall(r"^(/\w+) .*", source, re.MULTILINE))
    shown = {span.split()[0] for _, span in SPANS if span.startswith("/")}
    assert shown == known


def test_the_variables_are_those_that_the_program_reads() -> None:
    sources = [path.read_text("utf-8") for top in ("cli", "edgeqwen") for path in code(top)]
    known = set(re.findall(r"environ\S*\(?\"(EDGEQWEN_\w+)\"", "\n".join(sources)))
    shown = {name for _, span in SPANS for name in re.findall(r"\bEDGEQWEN_\w+", span)}
    assert shown == known


def code(top: str) -> list[Path]:
    return sorted((ROOT / top).rglob("*.py"))
