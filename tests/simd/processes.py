"""Runs Python programs in processes of their own, which share the kernels of this one or not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def start(
    program: str, *paths: Path, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Starts a program that can import the tests, and what lies in ``paths``."""
    found = os.pathsep.join([*map(str, paths), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": found.rstrip(os.pathsep), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str], timeout_s: float = 300) -> Any:
    """Waits for a program and returns what it printed, read as JSON."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return json.loads(out)
