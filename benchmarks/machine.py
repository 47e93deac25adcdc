"""What a figure was measured on: CPU, its limits, versions and commit, for the JSON files."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgeqwen.roofline import READ_BYTES, Limits
from edgeqwen.simd.isa import current_isa

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("edgeqwen", "numpy", "numba", "llvmlite", "gguf", "llama-cpp-python")
BUFFER_BYTES = READ_BYTES
LIMIT_ROUNDS = 7

BUSY = 0.7
"""Processes that wanted a CPU before a benchmark began: with more, its figures say so."""
BUSY_CPUS = 0.1
"""CPUs that others kept at work while a benchmark waited: with more, its figures say so."""


def describe(n_threads: int = 1) -> dict[str, Any]:
    """Returns what a benchmark's JSON says about this machine; takes two seconds or so.

    ``read_gb_per_s`` is what ``n_threads`` threads read together: no kernel that streams weights
    from memory can be faster, and every decode figure should be seen against it. So should a
    prefill figure against ``integer_gmac_per_s``: see ``edgeqwen.roofline``.
    """
    busy, others = round(load_average(), 2), round(busy_cpus(), 2)  # before this adds to them
    limits = machine_limits(n_threads)
    return {
        "cpu": cpu_name(),
        "n_cpus": os.cpu_count(),
        "n_usable_cpus": n_usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "isa": current_isa().name,
        "load_average": busy,
        "busy_cpus": others,
        "n_threads": n_threads,
        "read_gb_per_s": round(limits["read_bytes_per_s"] / 1e9, 1),
        "integer_gmac_per_s": round(limits["integer_macs_per_s"] / 1e9, 1),
        "float_gmac_per_s": round(limits["float_macs_per_s"] / 1e9, 1),
        "versions": versions(),
        "commit": commit(),
    }


def cpu_name() -> str:
    """Returns the CPU's name as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Hardware")):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def n_usable_cpus() -> int:
    """Returns how many CPUs this process may run on; a container may have fewer than the host."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float:
    """Returns how many processes wanted a CPU in the last minute; 0 where nobody counts them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def busy_cpus(seconds: float = 0.5) -> float:
    """Returns how many CPUs are at work while this process sleeps; 0 where the system won't tell.

    Unlike the load average, it doesn't remember what the benchmark itself did before.
    """
    before = _cpu_times()
    time.sleep(seconds)
    after = _cpu_times()
    if before is None or after is None:
        return 0.0
    busy, idle = (new - old for old, new in zip(before, after, strict=True))
    return (os.cpu_count() or 1) * busy / max(busy + idle, 1)


def _cpu_times() -> tuple[int, int] | None:
    """Returns the time that all CPUs were at work, and idle, since the system started (Linux)."""
    path = Path("/proc/stat")
    if not path.is_file():
        return None
    # user, nice, system, idle, waiting for disks, interrupts (2), and what other guests took.
    times = [int(field) for field in path.read_text().splitlines()[0].split()[1:9]]
    idle = times[3] + times[4]
    return sum(times) - idle, idle


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide the figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Returns the checkout's commit, with ``+changes`` where files differ from it."""
    head = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return head + ("+changes" if changed else "")


def machine_limits(n_threads: int) -> dict[str, float]:
    """Returns ``Limits.figures()`` of so many threads."""
    with Limits(n_threads, read_bytes=BUFFER_BYTES) as limits:
        for _ in range(LIMIT_ROUNDS):
            limits.measure()
        return limits.figures()


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    import json

    print(json.dumps(describe(int(sys.argv[1]) if len(sys.argv) > 1 else 1), indent=2))
