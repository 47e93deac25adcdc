"""The pages for users: their links lead somewhere, and they name every command and option."""

import inspect
import re
from pathlib import Path

import pytest
import typer

from edgeqwen.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_manual_names_every_command_and_option() -> None:
    manual = (ROOT / "docs" / "cli.md").read_text("utf-8")
    manual += (ROOT / "docs" / "quantize.md").read_text("utf-8")
    command: typer.models.CommandInfo
    for command in app.registered_commands:
        assert f"`edgeqwen {command.name}" in manual
        assert command.callback is not None
        for name in inspect.signature(command.callback).parameters:
            if name in ("model", "source", "file", "prompt", "output", "type"):
                continue
            long = {"as_json": "json"}.get(name, name.replace("_", "-"))
            short = {"prompt-tokens": "-p", "new-tokens": "-n", "depth": "-d", "repetitions": "-r"}
            assert f"--{long}" in manual or f"`{short.get(long)}`" in manual, (command.name, long)
