"""Running the command line as a user does, with and without a terminal."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import pytest

import edgeqwen
from edgeqwen.cli import failures, main
from tests.cli import fake_program

ROOT = Path(__file__).resolve().parents[2]
REAL = [sys.executable, "-m", "edgeqwen"]
FAKE = [sys.executable, "-m", "tests.cli.fake_program"]


def environment(**changes: str) -> dict[str, str]:
    """Returns the environment of a test's process: nothing in it asks for or against colours."""
    unwanted = ("NO_COLOR", "FORCE_COLOR", "EDGEQWEN_DEBUG", "COLUMNS", "TTY_COMPATIBLE")
    kept = {key: value for key, value in os.environ.items() if key not in unwanted}
    return {**kept, "TERM": "xterm-256color", "PYTHONWARNINGS": "error", **changes}


def run(
    *arguments: str | Path, input: str = "", answer: str = "", **changes: str
) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end in this process, without a terminal.

    Where it loads a model, it gets the fake one, which says ``answer`` to everything. In
    ``input``, surrogates U+DC80 to U+DCFF stand for bytes that are no UTF-8.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(3)]
    streams[0].buffer.write(input.encode(errors="surrogateescape"))  # type: ignore[attr-defined]
    streams[0].seek(0)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.multiple(sys, argv=["edgeqwen", *map(str, arguments)]),
        mock.patch.multiple(sys, stdin=streams[0], stdout=streams[1], stderr=streams[2]),
        mock.patch.dict(os.environ, environment(FAKE_SCRIPT=answer, **changes), clear=True),
        mock.patch.object(edgeqwen, "load", fake_program.load),
        mock.patch("edgeqwen.warmup.warmup", fake_program.warmup),
        mock.patch.object(failures, "_asked_for_tracebacks", False),
        pytest.raises(SystemExit) as leaving,
    ):
        main()
    signal.signal(signal.SIGTERM, on_sigterm)
    output, errors = (s.buffer.getvalue().decode() for s in streams[1:])  # type: ignore[attr-defined]
    code = leaving.value.code or 0
    return subprocess.CompletedProcess(arguments, int(code), output, errors)


def run_process(
    *arguments: str | Path, program: list[str] = REAL, input: str = "", **changes: str
) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end in a process of its own, without a terminal."""
    return subprocess.run(
        [*program, *map(str, arguments)],
        input=input,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        cwd=ROOT,
        env=environment(**changes),
    )


class Terminal:
    """A program at a pseudo-terminal, and the hands that type there."""

    def __init__(self, *arguments: str | Path, program: list[str] = FAKE, **changes: str) -> None:
        import pty

        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [*program, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env=environment(**changes),
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.output = ""
        self._read_until = 0

    def press(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str, *, timeout: float = 60.0) -> str:
        """Reads until ``text`` comes, and returns what came up to its end."""
        give_up = time.monotonic() + timeout
        while (found := self.output.find(text, self._read_until)) < 0:
            if time.monotonic() > give_up or not self._read_more(give_up):
                raise AssertionError(f"{text!r} didn't come, but {self.output!r}")
        begin, self._read_until = self._read_until, found + len(text)
        return self.output[begin : self._read_until]

    def wait_for_end(self, *, timeout: float = 60.0) -> int:
        """Reads the rest and returns the exit code."""
        give_up = time.monotonic() + timeout
        while self._read_more(give_up):
            pass
        return self._process.wait(timeout)

    def _read_more(self, give_up: float) -> bool:
        import select

        ready, _, _ = select.select([self._master], [], [], max(0, give_up - time.monotonic()))
        try:
            data = os.read(self._master, 4096) if ready else b""
        except OSError:  # how Linux tells that nobody has the other end open
            data = b""
        self.output += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._master)


def _take_terminal() -> None:
    """Makes standard input the controlling terminal, from which Ctrl-C comes."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def json_of(done: subprocess.CompletedProcess[str]) -> Any:
    """Returns the JSON object that a command printed, and only that."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
