"""Small pages that become huge ones while the memory is in use."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.cache import Region, huge_pages
from edgeqwen.cache.huge_pages import PAGE_BYTES, HugePages

needs_huge_pages = pytest.mark.skipif(
    not huge_pages.can_come_later(), reason="the system doesn't put pages together on request"
)


def huge_bytes(address: int) -> int:
    """Returns how much of the mapping that holds an address lies in huge pages."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        if inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the address isn't mapped")


@pytest.fixture
def filled() -> Region:
    # An odd size: what is no whole huge page stays as it is.
    region = Region(5 * PAGE_BYTES + 12345, purpose="a test")
    view = region.view(0, 5 * PAGE_BYTES + 12345)
    view[:] = np.arange(len(view), dtype=np.uint64).view(np.uint8)[: len(view)]
    return region


@needs_huge_pages
def test_pages_are_put_together_under_what_they_hold(
    filled: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huge_pages, "PATIENCE_SECONDS", 0.0)
    size = 5 * PAGE_BYTES + 12345
    before = filled.view(0, size).copy()
    small = huge_bytes(filled.address)
    pages = HugePages(filled.view(0, size))
    pages.start()
    pages._thread.join()
    assert small == 0
    # As many as fit: four or five, by where the memory begins.
    fitting = (filled.address + size) // PAGE_BYTES - -(-filled.address // PAGE_BYTES)
    assert huge_bytes(filled.address) == fitting * PAGE_BYTES >= 4 * PAGE_BYTES
    np.testing.assert_array_equal(filled.view(0, size), before)
    filled.close()


@needs_huge_pages
def test_it_waits_for_what_is_urgent_and_stops_at_once(filled: Region) -> None:
    pages = HugePages(filled.view(0, 5 * PAGE_BYTES))
    pages.start()
    began = time.perf_counter()
    pages.stop()
    assert time.perf_counter() - began < huge_pages.PATIENCE_SECONDS
    assert huge_bytes(filled.address) == 0
    pages.stop()
    filled.close()


def test_what_was_never_started_can_be_stopped() -> None:
    HugePages(np.zeros(0, np.uint8)).stop()


def test_a_system_without_memory_for_them_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(huge_pages, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(huge_pages, "_collapse", lambda address, _: bool(asked.append(address)))
    memory = Region(100 * PAGE_BYTES, purpose="a test").view(0, 100 * PAGE_BYTES)
    pages = HugePages(memory)
    pages.start()
    pages._thread.join()
    assert len(asked) == huge_pages.MOST_IN_VAIN
    assert asked == list(range(asked[0], asked[0] + len(asked) * PAGE_BYTES, PAGE_BYTES))
    assert 0 <= asked[0] - memory.ctypes.data < PAGE_BYTES


@pytest.mark.parametrize(("setting", "expected"), [("always [never]", False), (None, False)])
def test_a_system_that_does_not_want_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None, expected: bool
) -> None:
    file = tmp_path / "enabled"
    if setting is not None:
        file.write_text(setting)
    monkeypatch.setattr(huge_pages, "_SETTING", file)
    assert huge_pages.can_come_later.__wrapped__() is expected
