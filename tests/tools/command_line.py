"""The commands and options that edgeqwen really has, and the code that the guide's answers show."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer.main

from edgeqwen.cli.app import app
from tools.guide_model.guide import Guide, Topic

PROGRAM: Any = typer.main.get_command(app)


def real_commands() -> dict[str, Any]:
    """Returns the commands by name; those of a group by both their names ("sessions list")."""
    found = {}
    for name, command in PROGRAM.commands.items():
        for inner, grouped in getattr(command, "commands", {"": command}).items():
            found[f"{name} {inner}".strip()] = grouped
    return found


@dataclass(frozen=True, slots=True)
class RealOption:
    """An option as the program declares it; the command "edgeqwen" is the program itself."""

    command: str
    flags: frozenset[str]
    is_switch: bool
    is_required: bool
    default: Any


def real_options() -> list[RealOption]:
    """Returns every option of every command, --help included."""
    top = PROGRAM.context_class(PROGRAM, info_name="edgeqwen", **PROGRAM.context_settings)
    contexts = {"edgeqwen": top} | {
        name: command.context_class(command, info_name=name, parent=top)
        for name, command in real_commands().items()
    }
    return [
        RealOption(
            command=name,
            flags=frozenset(parameter.opts + parameter.secondary_opts),
            is_switch=parameter.is_flag,
            is_required=parameter.required,
            default=parameter.default,
        )
        for name, context in contexts.items()
        for parameter in context.command.get_params(context)
        if parameter.param_type_name == "option"
    ]


def code_spans(guide: Guide) -> Iterator[tuple[Topic, str]]:
    """Yields what stands between backticks in the answers."""
    for topic in guide.topics:
        for span in re.findall(r"`([^`]+)`", topic.answer):
            yield topic, span
