"""How much memory a process has taken; imports little, for processes whose start is timed."""

import contextlib
import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """Returns the most memory that this process has held, mapped files' touched pages included."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def private_bytes(pid: int | str) -> list[int]:
    """Returns a process's resident memory without mapped files, or nothing where nobody tells.

    ``pid``: "self" is this process.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return [int(line.split()[1]) * 1024]
    return []
