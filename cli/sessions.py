"""``edgeqwen sessions``: the conversations that were kept."""

import datetime
import json
from typing import TYPE_CHECKING, Annotated

import typer

from edgeqwen.cli import options
from edgeqwen.cli.terminal import clean, clean_line, error_line, size_text

if TYPE_CHECKING:
    from edgeqwen.session_files import SessionSummary

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of a session, or its file.")]


def list_sessions(as_json: options.Json = False) -> None:
    """List the sessions that have a name: tokens, size, last change, model."""
    from edgeqwen.errors import EdgeqwenError
    from edgeqwen.session_files import SUFFIX, sessions, summarize

    found, unreadable = [], []
    for path in sessions():
        try:
            found.append(summarize(path))
        except EdgeqwenError as error:
            unreadable.append(str(error))
    if as_json:
        print(json.dumps([_fields(summary) for summary in found]))
    elif not found:
        print("No conversation was kept yet; edgeqwen chat --session NAME keeps one.")
    else:
        width = max(len(summary.path.name) for summary in found) - len(SUFFIX)
        for s in found:
            changed = datetime.datetime.fromtimestamp(s.time).strftime("%Y-%m-%d %H:%M")
            name = clean_line(s.path.name.removesuffix(SUFFIX))
            print(
                f"{name:{width}}  {s.n_tokens:>7,} tokens  {size_text(s.n_bytes):>9}  {changed}  "
                f"{clean_line(s.identity.model)}"
            )
    for problem in unreadable:
        error_line(problem)


def show(name: Name, as_json: options.Json = False) -> None:
    """Print the messages of a session."""
    from edgeqwen.session_files import messages, session_path

    found = messages(session_path(name))
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for message in found:
        print(f"{clean_line(str(message['role']))}: {clean(str(message['content']))}\n")


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Sessions or their files; by default all named."),
    ] = None,
) -> None:
    """Compare the checksums of sessions with what is in them."""
    from edgeqwen.errors import EdgeqwenError
    from edgeqwen.session_files import session_path, sessions
    from edgeqwen.session_files import verify as verified

    failed = damaged = False
    for path in [session_path(name) for name in names] if names else sessions():
        try:
            result = verified(path)
        except EdgeqwenError as error:
            error_line(str(error))
            failed = True
            continue
        for problem in result.problems:
            error_line(f"{path}: {problem}")
        damaged = damaged or bool(result.problems)
        if not result.problems:
            n, covered = result.summary.n_tokens, result.n_covered
            rest = "" if covered == n else f", {n - covered:,} of them without a checksum yet"
            print(f"{clean_line(str(path))}: sound, {n:,} tokens{rest}")
    if damaged:
        print("chat --session NAME --rebuild reads what is left of a damaged session again.")
    if failed or damaged:
        raise typer.Exit(1)


def copy(
    source: Name,
    target: Annotated[str, typer.Argument(metavar="COPY", help="The name, or file, of the copy.")],
) -> None:
    """Copy a session, also one that is in use."""
    from edgeqwen.cli.session_names import session_file
    from edgeqwen.session_files import copy as copied

    copied(session_file(source), session_file(target))


def delete(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names of sessions, or their files.")
    ],
) -> None:
    """Delete sessions."""
    from edgeqwen.errors import EdgeqwenError
    from edgeqwen.session_files import delete as deleted
    from edgeqwen.session_files import session_path

    failed = False
    for name in names:
        try:
            deleted(session_path(name))
        except EdgeqwenError as error:
            error_line(str(error))
            failed = True
    if failed:
        raise typer.Exit(1)


def _fields(summary: "SessionSummary") -> dict[str, object]:
    return {
        "path": str(summary.path),
        "model": summary.identity.model,
        "cache_type": summary.identity.layout.cache_type,
        "tokens": summary.n_tokens,
        "bytes": summary.n_bytes,
        "time": summary.time,
    }
