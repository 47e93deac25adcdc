"""Writes docs/manual.md from the guide: ``python -m tools.manual``, or ``--check`` to compare."""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.guide_model.guide import COMMANDS, Guide, Option, Section, read_guide

PAGE = Path(__file__).resolve().parents[1] / "docs" / "manual.md"

_TOP = """\
<!-- Generated from docs/guide by `python -m tools.manual`: edit the guide, not this page. -->
# The manual

Everything about edgeqwen in short answers. The model that is built into edgeqwen was trained on
these very answers, so that you can ask it instead: `edgeqwen run "Which types are there?"`. Where
an answer says "I", it is that model. Details are in [the command line](cli.md),
[the Python API](python-api.md), [converting](quantize.md) and
[when something goes wrong](troubleshooting.md)."""


def manual(guide: Guide) -> str:
    """Returns the page: its contents, and section by section the topics and options."""
    parts = [_TOP, _contents(guide)]
    for section in guide.sections:
        parts.append(f"## {section.title}")
        parts += _option_tables(section)
        parts += [f"### {topic.title}\n\n{topic.answer}" for topic in section.topics]
    return "\n\n".join(parts) + "\n"


def anchor(heading: str) -> str:
    """Returns what a link to a heading is called, by GitHub's rules."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _contents(guide: Guide) -> str:
    lines = []
    for section in guide.sections:
        headings = [heading for heading, _ in _groups(section)]
        headings += [topic.title for topic in section.topics]
        lines.append(f"- **{_link(section.title)}**: {' · '.join(map(_link, headings))}")
    return "\n".join(lines)


def _link(heading: str) -> str:
    return f"[{heading}](#{anchor(heading)})"


def _option_tables(section: Section) -> Iterator[str]:
    for heading, options in _groups(section):
        yield f"### {heading}"
        yield _table(options)


def _groups(section: Section) -> Iterator[tuple[str, list[Option]]]:
    """Yields what options there are for all commands together, and for each one alone."""
    common = [option for option in section.options if set(option.commands) == set(COMMANDS)]
    for command in COMMANDS:
        options = [o for o in section.options if command in o.commands and o not in common]
        if options:
            name = "edgeqwen" if command == "edgeqwen" else f"edgeqwen {command}"
            yield f"Options of {name}", options
    if common:
        yield "Options of every command", common


def _table(options: Iterable[Option]) -> str:
    rows = ["| option | what it does | default |", "|---|---|---|"]
    for option in options:
        value = f" {option.value}" if option.value else ""
        names = ", ".join(f"`{flag}{value}`" for flag in option.flags)
        cells = (names, option.meaning, option.default)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Writes the page, or says that it isn't what the guide makes and exits with 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.manual", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, and write nothing")
    check: bool = parser.parse_args().check
    text = manual(read_guide())
    if not check:
        PAGE.write_text(text, "utf-8", newline="\n")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != text:
        sys.exit(f"{PAGE} is not what the guide makes: run python -m tools.manual")


if __name__ == "__main__":
    main()
