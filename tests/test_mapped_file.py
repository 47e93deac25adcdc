"""Files mapped into memory: read ahead, given up, forgotten; what is wrong with a path is tested
with the files themselves."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.mapped_file import forget, map_file, read_ahead, release, unmap
from tests.resident import resident_bytes

MEGABYTE = 1 << 20
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(np.arange(5 * MEGABYTE // 8).tobytes() + b"the end")
    return path


@only_linux
def test_all_of_a_file_is_read_by_somebody_else(path: Path) -> None:
    mapping = map_file(path)
    assert resident_bytes(path) == 0
    read_ahead(mapping)
    deadline = time.monotonic() + 60
    while resident_bytes(path) < 5 * MEGABYTE:
        assert time.monotonic() < deadline, f"{resident_bytes(path)} bytes were read"
        time.sleep(0.01)
    release(mapping, 0, len(mapping))
    assert resident_bytes(path) == 0
    assert mapping[-7:] == b"the end"


@only_linux
def test_reading_ahead_can_be_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: threads.append(thread))
    mapping = map_file(path)
    stop = read_ahead(mapping)
    stop()
    start(threads[0])
    threads[0].join()
    assert resident_bytes(path) == 0


def test_a_mapping_may_go_while_it_is_read(path: Path) -> None:
    """The thread that reads it keeps it until it has ended."""
    for _ in range(20):
        mapping = map_file(path)
        read_ahead(mapping)
        unmap(mapping)


def test_what_is_forgotten_is_read_again(path: Path) -> None:
    before = path.read_bytes()
    forget(path)
    assert path.read_bytes() == before
    forget(path.with_name("nowhere"))
