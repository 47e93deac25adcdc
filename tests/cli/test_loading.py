"""The model of a command that names none: the built-in one, with a line that says so."""

from pathlib import Path
from typing import Any

import pytest

import edgeqwen
from edgeqwen.cli.loading import BUILT_IN
from edgeqwen.guide import model_path
from tests.cli import fake_program
from tests.cli.running import json_of, run

COMMANDS = {
    "chat": (),
    "run": ("hello",),
    "bench": ("-p", "4", "-n", "0", "-r", "1"),
    "perplexity": (),
    "warmup": (),
}


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were loaded, or that kernels were compiled for."""
    found: list[Path] = []
    load, warmup = fake_program.load, fake_program.warmup

    def note_load(path: Path, **options: Any) -> edgeqwen.Model:
        found.append(path)
        return load(path, **options)

    def note_warmup(path: Path, **options: Any) -> None:
        found.append(path)
        warmup(path, **options)

    monkeypatch.setattr(fake_program, "load", note_load)
    monkeypatch.setattr(fake_program, "warmup", note_warmup)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_model(command: str, asked_for: list[Path]) -> None:
    done = run(command, *COMMANDS[command])
    assert (done.returncode, done.stderr) == (0, f"{BUILT_IN}\n")
    assert set(asked_for) == {model_path()}


@pytest.mark.parametrize("command", COMMANDS)
def test_with_a_model(command: str, asked_for: list[Path]) -> None:
    done = run(command, "x.gguf", *COMMANDS[command])
    assert (done.returncode, done.stderr) == (0, "")
    assert set(asked_for) == {Path("x.gguf")}


def noted(monkeypatch: pytest.MonkeyPatch, option: str) -> list[object]:
    """Returns a list that gets what each model is loaded with for an option of ``load``."""
    found: list[object] = []
    load = fake_program.load

    def note_load(path: Path, **options: Any) -> edgeqwen.Model:
        found.append(options[option])
        return load(path, **options)

    monkeypatch.setattr(fake_program, "load", note_load)
    return found


@pytest.mark.parametrize("command", ["chat", "run", "bench"])
@pytest.mark.parametrize("options", [(), ("--full-head",)], ids=str)
def test_the_full_head(
    command: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded so."""
    found = noted(monkeypatch, "full_head")
    done = run(command, "x.gguf", *COMMANDS[command], *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(found) == {bool(options)}
    assert len(found) == 1


@pytest.mark.parametrize("command", ["chat", "run", "bench", "perplexity"])
@pytest.mark.parametrize(("options", "cache_type"), [((), "f16"), (("--kv", "q8_0"), "q8_0")])
def test_the_type_of_keys_and_values(
    command: str, options: tuple[str, ...], cache_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded so."""
    found = noted(monkeypatch, "cache_type")
    done = run(command, "x.gguf", *COMMANDS[command], *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert found == [cache_type]


@pytest.mark.parametrize("command", ["chat", "run", "perplexity"])
def test_yarn(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = noted(monkeypatch, "rope_scaling")
    for yarn in ((), ("--yarn", "2.5")):
        done = run(command, "x.gguf", *COMMANDS[command], *yarn)
        assert (done.returncode, done.stderr) == (0, "")
    assert found == [None, {"rope_type": "yarn", "factor": 2.5}]
    done = run(command, "x.gguf", *COMMANDS[command], "--yarn", "0.5")
    assert done.returncode == 2
    assert "--yarn" in done.stderr


@pytest.mark.parametrize("command", ["run", "bench", "perplexity"])
def test_json_stays_json(command: str) -> None:
    assert json_of(run(command, *COMMANDS[command], "--json"))


def test_the_line_is_short_and_says_how_to_get_a_real_model_and_use_it() -> None:
    assert len(BUILT_IN) <= 160
    assert "\n" not in BUILT_IN
    assert BUILT_IN.endswith("edgeqwen quantize FOLDER -o model.gguf && edgeqwen chat model.gguf")
