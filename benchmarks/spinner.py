"""A busy neighbour: a process that does nothing but keep a CPU at work.

    python -m benchmarks.spinner [CPU]

It ends when its standard input closes, so that it never outlives the benchmark.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.worker import ROOT


@contextmanager
def busy_process(cpu: int | None = None) -> Iterator[None]:
    """Keeps a loop in another process at work, on one CPU or wherever the system puts it."""
    arguments = [] if cpu is None else [str(cpu)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.spinner", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            raise RuntimeError(f"the busy process ended with code {process.wait()}")
        yield
    finally:
        process.kill()
        process.communicate()


def spin(cpu: int | None) -> None:
    """Says that it begins, and never ends by itself."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    print("spinning", flush=True)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    while True:
        pass


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    spin(int(sys.argv[1]) if len(sys.argv) > 1 else None)
