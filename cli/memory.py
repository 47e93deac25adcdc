"""How much memory this process has taken at most, and how much it may still take."""

import sys
from pathlib import Path

_MEMINFO, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    class _Counters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of psapi.h."""

        _fields_ = (
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            ("PeakWorkingSetSize", ctypes.c_size_t),
            ("WorkingSetSize", ctypes.c_size_t),
            ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
            ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
            ("PagefileUsage", ctypes.c_size_t),
            ("PeakPagefileUsage", ctypes.c_size_t),
        )

    def peak_rss_bytes() -> int | None:
        """Returns the largest resident size so far in bytes; None where the system won't tell."""
        counters = _Counters(cb=ctypes.sizeof(_Counters))
        kernel32 = ctypes.WinDLL("kernel32")
        kernel32.GetCurrentProcess.restype = wintypes.HANDLE
        query = kernel32.K32GetProcessMemoryInfo
        query.argtypes = (wintypes.HANDLE, ctypes.POINTER(_Counters), wintypes.DWORD)
        known = query(kernel32.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
        return counters.PeakWorkingSetSize if known else None

else:
    import resource

    def peak_rss_bytes() -> int | None:
        """Returns the largest resident size so far in bytes; None where the system won't tell."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Bytes on macOS, kilobytes on Linux and the BSDs.
        return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int | None:
    """Returns the memory that may still be taken without swapping; None where it isn't known.

    Linux tells, and a container's own limit counts (cgroup, version 2).
    """
    found = [n for n in (_free_in_machine(_MEMINFO), _free_in_group(_GROUP)) if n is not None]
    return min(found, default=None)


def _free_in_machine(meminfo: Path) -> int | None:
    return _number(meminfo, "MemAvailable:", scale=1024)


def _free_in_group(group: Path) -> int | None:
    limit = _number(group / "memory.max")
    taken = _number(group / "memory.current")
    if limit is None or taken is None:
        return None
    # What files have left in memory counts as taken, but goes as soon as it is needed.
    files = _number(group / "memory.stat", "inactive_file")
    return max(limit - taken + (files or 0), 0)


def _number(path: Path, name: str = "", *, scale: int = 1) -> int | None:
    """Returns the number behind a name in a file, or the file's only one; None if there is none."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
        return next(
            int(line[1 if name else 0]) * scale for line in words if line and name in ("", line[0])
        )
    except (OSError, ValueError, IndexError, StopIteration):
        return None
