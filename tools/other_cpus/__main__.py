"""``python -m tools.other_cpus arm64``: the command behind ``make test-arm64`` and its like."""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tools.other_cpus.emulators import ROOT
from tools.other_cpus.errors import UnavailableError
from tools.other_cpus.runs import GROUPS, Run

CHOSEN_ISA = "from edgeqwen.simd.isa import current_isa; print(current_isa().name)"
SHOWN_LINES = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a group's tests, as many at once as there are processors; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.other_cpus", description=__doc__)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument(
        "--or-skip", action="store_true", help="succeed where this machine can't run them"
    )
    options = parser.parse_args(arguments)
    # A kernel that traps would leave all of an emulator's memory in a file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        launchers = [(run, run.launcher()) for run in GROUPS[options.group]]
    except UnavailableError as error:
        print(f"{options.group}: {'skipped' if options.or_skip else 'error'}: {error}")
        return 0 if options.or_skip else 1
    print(
        f"{options.group}: running the tests on {len(launchers)} CPUs, some minutes ...", flush=True
    )
    with ThreadPoolExecutor(_usable_cpus()) as pool:
        passed = list(pool.map(lambda launcher: tested(*launcher), launchers))
    return 0 if all(passed) else 1


def tested(run: Run, launcher: Sequence[str]) -> bool:
    """Runs the tests on one CPU, prints how they went, and returns whether that is well."""
    start = time.monotonic()
    run.folder.mkdir(parents=True, exist_ok=True)
    if not run.emulated:
        # What comes from the cache isn't compiled, and its registers aren't looked at.
        shutil.rmtree(run.folder / "cache", ignore_errors=True)
    chosen = _output(run, [*launcher, "-c", CHOSEN_ISA])
    if not run.emulated and "CpuError" in chosen:
        print(f"{run.title}: skipped: {chosen.splitlines()[-1]}", flush=True)
        return True
    if chosen.strip() != run.isa:
        print(f"{run.title}: failed: there, edgeqwen chooses\n{chosen}", flush=True)
        return False
    log = run.folder / "log.txt"
    with log.open("w") as out:
        status = subprocess.run(
            [*launcher, *run.tests()],
            env=run.environment(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        ).returncode
    lines = log.read_text(errors="replace").splitlines()
    seconds = time.monotonic() - start
    shown = lines[-1:] if status == 0 else [f"failed with {status}", *lines[-SHOWN_LINES:]]
    # In one piece: other runs print, too.
    print("\n".join([f"{run.title}: {seconds:.0f} s, all of it in {log}", *shown]), flush=True)
    return status == 0


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _output(run: Run, command: Sequence[str]) -> str:
    done = subprocess.run(
        command, env=run.environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else done.stderr


if __name__ == "__main__":
    sys.exit(main())
