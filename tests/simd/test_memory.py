"""Pages that a kernel has the system put in their places."""

import ctypes
import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.simd.compile import kernel
from edgeqwen.simd.memory import populate_to_read, populate_to_write
from tests.isas import address

N_BYTES = 256 * mmap.PAGESIZE

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="only Linux tells what is in memory"
)


@kernel
def populate_reads(start, n_bytes):  # type: ignore[no-untyped-def]
    populate_to_read(start, n_bytes)


@kernel
def populate_writes(start, n_bytes):  # type: ignore[no-untyped-def]
    populate_to_write(start, n_bytes)


def resident(start: int, kind: str = "Rss") -> int:
    """Returns how many bytes of the mapping at an address are in memory, as smaps counts them."""
    is_there = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            is_there = int(found[1], 16) <= start < int(found[2], 16)
        elif is_there and line.startswith(f"{kind}:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("there is no such mapping")


def test_memory_to_be_written() -> None:
    """Its own pages, not the one of zeros that all share until they are written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = np.frombuffer(mmap.mmap(-1, N_BYTES, flags=flags), np.uint8)
    start = address(memory)
    before = resident(start, "Private_Dirty")
    populate_writes(start, N_BYTES)
    check(resident(start, "Private_Dirty") - before)


def test_a_file_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(N_BYTES))
    with path.open("rb") as file:
        memory = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    start = address(memory)
    before = resident(start)
    populate_reads(start, N_BYTES)
    check(resident(start) - before)


def check(populated: int) -> None:
    """Compares with all that there is to populate, where the system does so at all."""
    if populated == 0 and not _populates():
        pytest.skip("this system doesn't populate pages when asked to")
    assert populated >= N_BYTES


def _populates() -> bool:
    """Asks for pages by the system's own function: Linux before 5.14 and emulators give none."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = np.frombuffer(mmap.mmap(-1, N_BYTES, flags=flags), np.uint8)
    before = resident(address(memory))
    madvise(address(memory), N_BYTES, 23)
    return resident(address(memory)) > before
