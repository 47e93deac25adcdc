"""One session's life, broken off at any line of the code that writes it; run as a program.

``python -m tests.cache.broken_off FOLDER KIND FIRST STEP`` forks a process for each of the lines
FIRST, FIRST + STEP, ... that ``live`` executes in edgeqwen/cache, in which it is broken off there:

- kill: by SIGKILL. All that was committed must be there, and go on.
- power: so, and of the pages written since the last ``fsync`` only some have reached the disk, and
  the system has been started anew. All that was sealed must be there, and go on.
- interrupt: by KeyboardInterrupt, after which the session is forgotten. As for kill.

Prints JSON: the number of lines, and how many were tried while which operation was under way.
"""

import collections
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import edgeqwen.cache
from edgeqwen.cache import session_file, session_state
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.verify import verify
from edgeqwen.kernels.attention_types import SEGMENT
from tests.cache.filled import IDENTITY, create, extend, holds, random_ids, shift

CACHE = str(Path(edgeqwen.cache.__file__).parent)
PAGE = 4096

# What a session goes through: growth, seals, and places that are used again.
LIFE: list[tuple[str, Any]] = [
    ("create", b""),
    ("extend", 300),
    ("transcript", b"first"),
    ("seal", None),
    ("extend", 1),
    ("extend", 1),
    ("transcript", b"second" * 20_000),
    ("truncate", 290),  # below what was sealed
    ("extend", 250),
    ("transcript", b"third"),
    ("truncate", 530),  # not below
    ("seal", None),
    ("truncate", 100),  # gives segments back
    ("extend", 30),
    ("transcript", b"fourth" * 30_000),
    ("extend", 300),
    ("reopen", None),
    ("shift", (20, 100)),  # below what was sealed
    ("extend", 400),
    ("seal", None),
    ("shift", (300, 300)),
    ("truncate", 256),
    ("transcript", b""),
    ("extend", 2),
    ("seal", None),
    ("truncate", 0),
    ("extend", 3),
    ("reopen", None),
]
State = tuple[list[int], bytes]


def live(path: Path, note: Callable[[int], None]) -> None:
    """Does all of LIFE; ``note`` is told each step before it is done, and the end."""
    session = None
    for i, (what, value) in enumerate(LIFE):
        note(i)
        if session is None:
            session = create(path)
        elif what == "extend":
            extend(session, random_ids(value, i))
        elif what == "truncate":
            session.truncate(value)
        elif what == "shift":
            shift(session, *value)
        elif what == "transcript":
            session.set_transcript(value)
        elif what == "seal":
            session.seal()
        else:
            session.close()
            session = SessionFile.open(path, IDENTITY)
    note(len(LIFE))


def states() -> list[tuple[State, State]]:
    """Returns the state after each step, and what of it is safe from power failures."""
    found = []
    tokens: list[int] = []
    stored: list[int] = []
    transcript = kept = b""
    for i, (what, value) in enumerate(LIFE):
        if what == "extend":
            tokens = [*tokens, *random_ids(value, i)]
        elif what == "truncate":
            tokens = tokens[:value]
            stored = stored[: value // SEGMENT * SEGMENT] if value < len(stored) else stored
        elif what == "shift":
            keep, n = value
            tokens = tokens[:keep] + tokens[keep + n :]
            stored = stored[: keep // SEGMENT * SEGMENT]
        elif what == "transcript":
            transcript = value
        else:
            stored, kept = tokens, transcript
        found.append(((tokens, transcript), (stored, kept)))
    return found


def break_off(line: int, act: Callable[[], None]) -> None:
    """Arranges that ``act`` is called at that line of edgeqwen/cache, counted from now on."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "call" and not frame.f_code.co_filename.startswith(CACHE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                act()
        return trace

    sys.settrace(trace)


def in_child(path: Path, kind: str, line: int) -> None:
    """Lives until that line; in a process of its own, which ends."""
    progress = path.with_name("progress")

    def note(step: int) -> None:
        handle = os.open(progress, os.O_WRONLY | os.O_CREAT)
        os.write(handle, b"%4d" % step)
        os.close(handle)

    def act() -> None:
        if kind == "interrupt":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGKILL)

    if kind == "power":
        keep_what_reaches_the_disk(path)
    break_off(line, act)
    with contextlib.suppress(KeyboardInterrupt):
        live(path, note)
    sys.settrace(None)


def keep_what_reaches_the_disk(path: Path) -> None:
    """Copies the file at each fsync. (The flush of a mapping alone is taken to do nothing.)"""

    def fsync(handle: int) -> None:
        name = path if path.exists() else path.with_name(f".{path.name}.new")
        if os.path.samestat(os.fstat(handle), os.stat(name)):
            aside = path.with_name("aside")
            aside.write_bytes(name.read_bytes())
            os.replace(aside, path.with_name("disk"))

    os.fsync = fsync


def lose_power(path: Path, seed: int) -> None:
    """Leaves some of the pages as they were at the last fsync, and starts the system anew."""
    now, then = path.read_bytes(), path.with_name("disk").read_bytes()
    choose = random.Random(seed)
    share = choose.choice([0.1, 0.5, 0.9])
    size = choose.choice([len(now), max(len(then), len(now) // PAGE // 2 * PAGE)])
    now, then = now.ljust(size, b"\0")[:size], then.ljust(size, b"\0")[:size]
    pages = [
        (now if choose.random() < share else then)[start : start + PAGE]
        for start in range(0, size, PAGE)
    ]
    path.write_bytes(b"".join(pages))
    boot = choose.randbytes(16)
    session_file.boot_identity = session_state.boot_identity = lambda: boot  # type: ignore[attr-defined]


def check(path: Path, kind: str, step: int, after: list[tuple[State, State]]) -> None:
    """Asserts that what must be there is, and goes on."""
    which = 1 if kind == "power" else 0
    before = [after[step - 1][which]] if step else []
    allowed = before + ([after[step][which]] if step < len(LIFE) else [])
    if not path.exists():
        assert step == 0, "the session is gone"
        return
    found = verify(path)
    assert not found.problems, found.problems
    session = SessionFile.open(path, IDENTITY)
    state = (list(session.tokens), session.transcript)
    assert state in allowed, (
        f"{len(state[0])} tokens and {state[1][:10]!r}, expected one of "
        f"{[(len(tokens), transcript[:10]) for tokens, transcript in allowed]}"
    )
    assert holds(session, state[0]), "the keys and values are others"
    more = random_ids(400, 99)
    extend(session, more)
    session.set_transcript(b"and on")
    session.close()
    assert not verify(path).problems
    session = SessionFile.open(path, IDENTITY)
    assert holds(session, [*state[0], *more])
    assert session.transcript == b"and on"
    session.close()


def no_fsync(_: int) -> None:
    """Takes the place of ``os.fsync``: no disk is waited for."""


def main(folder: str, kind: str, first: str, step: str) -> None:
    after = states()
    os.fsync = no_fsync
    hit: collections.Counter[str] = collections.Counter()
    line = int(first)
    while True:
        place = Path(folder) / str(line)
        place.mkdir()
        path = place / "session"
        child = os.fork()
        if child == 0:
            in_child(path, kind, line)
            os._exit(0)
        os.waitpid(child, 0)
        reached = int((place / "progress").read_text())
        if reached == len(LIFE):
            break
        try:
            if kind == "power" and path.exists():
                boots = session_file.boot_identity, session_state.boot_identity
                whole = path.read_bytes()
                for seed in range(6):
                    path.write_bytes(whole)
                    lose_power(path, seed)
                    check(path, kind, reached, after)
                session_file.boot_identity, session_state.boot_identity = boots
            else:
                check(path, kind, reached, after)
        except BaseException as error:
            error.add_note(f"broken off at line {line}, in step {reached}: {LIFE[reached]}")
            raise
        hit[LIFE[reached][0]] += 1
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
        line += int(step)
    print(json.dumps({"lines": line, "hit": hit}))


if __name__ == "__main__":
    main(*sys.argv[1:])
