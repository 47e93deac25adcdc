"""How much of a file this process has in its memory, by mapping it (Linux)."""

import re
from pathlib import Path


def resident_bytes(path: Path) -> int:
    """Returns the bytes of a file's mapped pages that are there."""
    total, is_of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_of_file = line.endswith(str(path))
        elif is_of_file and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total
