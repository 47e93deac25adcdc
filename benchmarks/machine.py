"""What a figure was measured on: CPU, memory bandwidth, versions and commit, for the JSON files."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edgeqwen.simd.compile import array_kernel
from edgeqwen.simd.isa import current_isa

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("edgeqwen", "numpy", "numba", "llvmlite", "gguf", "llama-cpp-python")
BUFFER_BYTES = 1 << 29  # far more than any cache of the CPUs in question

BUSY = 0.7
"""Processes that wanted a CPU before a benchmark began: with more, its figures say so."""


def describe(n_threads: int = 1) -> dict[str, Any]:
    """Returns what a benchmark's JSON says about this machine; reads memory for about a second.

    ``read_gb_per_s`` is what ``n_threads`` threads read together: no kernel that streams weights
    from memory can be faster, and every decode figure should be seen against it.
    """
    return {
        "cpu": cpu_name(),
        "n_cpus": os.cpu_count(),
        "n_usable_cpus": n_usable_cpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "isa": current_isa().name,
        "load_average": round(load_average(), 2),
        "n_threads": n_threads,
        "read_gb_per_s": round(read_bandwidth(n_threads), 1),
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


def read_bandwidth(n_threads: int, *, rounds: int = 7) -> float:
    """Returns GB/s (1e9 bytes) of plain sequential reads by n threads, the median of the rounds."""
    n = BUFFER_BYTES // 8 // n_threads
    parts = [np.ones(n, np.uint64) for _ in range(n_threads)]
    seconds = []
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(rounds + 1):
            start = time.perf_counter()
            totals = list(pool.map(_sum, parts))
            seconds.append(time.perf_counter() - start)
            if totals != [n] * n_threads:
                raise RuntimeError(f"reading memory gave {totals} instead of {n} per thread")
    return n * 8 * n_threads / float(np.median(seconds[1:])) / 1e9


@array_kernel
def _sum(values):  # type: ignore[no-untyped-def]
    total = np.uint64(0)
    for i in range(values.size):
        total += values[i]
    return total


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    import json

    print(json.dumps(describe(int(sys.argv[1]) if len(sys.argv) > 1 else 1), indent=2))
