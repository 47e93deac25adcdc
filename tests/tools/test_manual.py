"""docs/manual.md: it is what the guide makes, and it shows all of it."""

import re
import sys
from pathlib import Path

import pytest

from tools import manual
from tools.guide_model.guide import COMMANDS, Guide, Option, Section, Topic, read_guide

CHAT = Topic("chat", "about", "What's a chat?", (), ("chat",), ("talk",), "Talk. `/quit` leaves.")
LIMIT = Option(
    "options", ("chat", "run"), ("-n", "--max-tokens"), "N", "at most N tokens", "none", ()
)
SPECIAL = Option("options", ("run",), ("--special",), "", "read `<|im_start|>`", "", ())
HELP = Option("options", COMMANDS, ("--help",), "", "show the options", "", ())


def page(*sections: Section) -> str:
    """Returns the page of a small guide, from its contents on."""
    text = manual.manual(Guide(sections))
    return text[text.index("\n- **") + 1 :]


def test_the_manual_is_up_to_date() -> None:
    assert manual.PAGE.read_text("utf-8") == manual.manual(read_guide()), (
        "run python -m tools.manual"
    )


def test_topics_stand_under_their_sections() -> None:
    assert page(Section("about", "On edgeqwen", (CHAT,), ())) == (
        "- **[On edgeqwen](#on-edgeqwen)**: [What's a chat?](#whats-a-chat)\n\n"
        "## On edgeqwen\n\n"
        "### What's a chat?\n\n"
        "Talk. `/quit` leaves.\n"
    )


def test_options_stand_under_their_commands() -> None:
    text = page(Section("options", "Options", (), (LIMIT, SPECIAL, HELP)))
    limit = "| `-n N`, `--max-tokens N` | at most N tokens | none |\n"
    head = "| option | what it does | default |\n|---|---|---|\n"
    assert text == (
        "- **[Options](#options)**: [Options of edgeqwen chat](#options-of-edgeqwen-chat) · "
        "[Options of edgeqwen run](#options-of-edgeqwen-run) · "
        "[Options of every command](#options-of-every-command)\n\n"
        "## Options\n\n"
        f"### Options of edgeqwen chat\n\n{head}{limit}\n"
        f"### Options of edgeqwen run\n\n{head}{limit}"
        "| `--special` | read `<\\|im_start\\|>` |  |\n\n"
        f"### Options of every command\n\n{head}"
        "| `--help` | show the options |  |\n"
    )


def test_every_link_leads_to_one_heading() -> None:
    text = manual.PAGE.read_text("utf-8")
    headings = [manual.anchor(h) for h in re.findall(r"^##+ (.+)$", text, re.MULTILINE)]
    links = re.findall(r"\]\(#(.+?)\)", text)
    assert len(set(headings)) == len(headings)
    assert links == headings


def test_an_anchor_is_what_github_makes_of_a_heading() -> None:
    assert manual.anchor("What's `top_k`: a top-k, or 2.5?") == "whats-top_k-a-top-k-or-25"


def test_check_compares_and_writing_mends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "manual.md"
    monkeypatch.setattr(manual, "PAGE", copy)
    monkeypatch.setattr(sys, "argv", ["manual", "--check"])
    for text in (None, "old"):
        if text is not None:
            copy.write_text(text, "utf-8")
        with pytest.raises(SystemExit) as error:
            manual.main()
        assert error.value.code == (
            f"{copy} is not what the guide makes: run python -m tools.manual"
        )
    assert copy.read_text("utf-8") == "old"
    monkeypatch.setattr(sys, "argv", ["manual"])
    manual.main()
    monkeypatch.setattr(sys, "argv", ["manual", "--check"])
    manual.main()
