"""Mapped memory: zero and free of charge until touched, refused with a reason, given back."""

import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.cache import Region
from edgeqwen.errors import OptionError

OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


def resident() -> int:
    """Returns this process's bytes in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_zero_and_aligned() -> None:
    region = Region(10_000, purpose="a test")
    assert region.address % mmap.PAGESIZE == 0
    view = region.view(0, 10_000)
    assert view.dtype == np.uint8
    assert not view.any()
    view[:] = 7
    assert region.view(9_998, 2).tolist() == [7, 7]
    assert region.view(16, 8).ctypes.data == region.address + 16


def test_nothing_is_too_small() -> None:
    region = Region(0, purpose="a test")
    assert len(region.view(0, 0)) == 0
    region.close()


@pytest.mark.skipif(
    not OVERCOMMIT.exists() or OVERCOMMIT.read_text().strip() == "2",
    reason="reads the memory in use from Linux's /proc, and wants more than there may be",
)
def test_memory_is_taken_as_it_is_written_and_given_back() -> None:
    size, before = 1 << 34, resident()
    region = Region(size, purpose="a test")  # more than many machines have
    assert resident() - before < 4 << 20
    for place in (0, size // 2, size - (8 << 20)):
        region.view(place, 8 << 20)[:] = 1
    assert 20 << 20 < resident() - before < 40 << 20
    region.close()
    assert resident() - before < 4 << 20


def flags_of(address: int) -> list[str]:
    """Returns what the system says of the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        if inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("the address isn't mapped")


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has no huge pages"
)
def test_huge_pages_are_asked_for() -> None:
    huge, plain = (Region(8 << 20, purpose="a test", huge=huge) for huge in (True, False))
    assert "hg" in flags_of(huge.address)
    assert "hg" not in flags_of(plain.address)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="nobody is asked for huge pages")
def test_a_system_without_huge_pages_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    assert not Region(4096, purpose="a test", huge=True).view(0, 4096).any()


@pytest.mark.parametrize("size", [1 << 50, 1 << 62, 1 << 64])
def test_too_much_is_refused_with_a_reason(size: int) -> None:
    with pytest.raises(OptionError) as caught:
        Region(size, purpose="a KV cache for 99 tokens (see max_context)")
    assert str(caught.value).startswith(
        f"a KV cache for 99 tokens (see max_context) needs {size / 1e9:.1f} GB of address space, "
        "which the system refuses: "
    )


def test_closing_twice_and_with_a_view_held() -> None:
    region = Region(4096, purpose="a test")
    view = region.view(8, 8)
    view[:] = 5
    region.close()
    region.close()
    assert view.tolist() == [5] * 8  # the memory goes with the last view
