"""Which memory of a file packing gives up, and when: only what was read, many pages at once."""

import mmap

import numpy as np
import pytest

from edgeqwen.formats import Q4_0, packing
from edgeqwen.formats.packing import JOB, pack_jobs, with_releases

ROW_BYTES = 18 * 32  # of 1024 columns


def jobs_of(memory: np.ndarray, *tensors: tuple[int, int]) -> np.ndarray:
    """Returns the jobs of tensors (offset in memory, rows), as they come."""
    parts = [
        pack_jobs(Q4_0, memory[start : start + rows * ROW_BYTES], rows, 0)
        for start, rows in tensors
    ]
    return np.concatenate([part.view(np.int64) for part in parts]).view(JOB)


def released(memory: np.ndarray, jobs: np.ndarray) -> list[tuple[int, int]]:
    """Returns the ranges that are given up, as offsets, in the order of the jobs."""
    pairs = zip(jobs["release_first"].tolist(), jobs["release_last"].tolist(), strict=True)
    start = memory.ctypes.data
    return [(first - start, last - start) for first, last in pairs if last]


def test_neighbours_go_together_and_nothing_between_strangers() -> None:
    memory = np.zeros(4 << 20, np.uint8)
    one, other = 100 * ROW_BYTES, 35 * ROW_BYTES
    near, far = one + 24, 2 << 20
    tensors = (far, 20), (near, 35), (0, 100)
    jobs = with_releases(Q4_0, jobs_of(memory, *tensors))
    assert (np.diff(jobs["source"] + jobs["first"] * 16 * ROW_BYTES) > 0).all()
    assert released(memory, jobs) == [(0, near + other), (far, far + 20 * ROW_BYTES)]


def test_a_gap_of_a_page_may_be_anybody_s() -> None:
    memory = np.zeros(4 << 20, np.uint8)
    end = 100 * ROW_BYTES
    for gap, n_ranges in ((mmap.PAGESIZE - 1, 1), (mmap.PAGESIZE, 2)):
        jobs = with_releases(Q4_0, jobs_of(memory, (0, 100), (end + gap, 16)))
        assert len(released(memory, jobs)) == n_ranges


def test_memory_is_given_up_all_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte once, a stretch when its last job is done, and no stretch much too long."""
    monkeypatch.setattr(packing, "JOB_BYTES", 64 * ROW_BYTES)
    monkeypatch.setattr(packing, "RELEASE_BYTES", 256 * ROW_BYTES)
    memory = np.zeros(1000 * ROW_BYTES, np.uint8)
    jobs = with_releases(Q4_0, jobs_of(memory, (0, 600), (600 * ROW_BYTES, 400)))
    ranges = released(memory, jobs)
    assert [first for first, _ in ranges] == [0, *(last for _, last in ranges[:-1])]
    assert ranges[-1][1] == len(memory)
    assert all(last - first <= (256 + 64) * ROW_BYTES for first, last in ranges)
    done = jobs["source"] + np.minimum(16 * jobs["last"], jobs["n_rows"]) * ROW_BYTES
    for end, last in zip(done, jobs["release_last"], strict=True):
        assert last in (0, end)
