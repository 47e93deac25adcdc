"""The pages for users: their links lead somewhere, and they name every command."""

import re
from pathlib import Path

import pytest

from edgeqwen.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_page_for_scripts_names_every_command() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for command in app.registered_commands:
        assert f"| `edgeqwen {command.name} " in page
