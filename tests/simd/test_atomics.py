"""Atomic operations: what they return and store, and that threads don't lose each other's."""

import threading

import numpy as np
import pytest

from edgeqwen.simd.atomics import (
    atomic_add,
    atomic_exchange,
    atomic_load,
    atomic_store,
    compare_and_swap,
    pause,
    yield_processor,
)
from edgeqwen.simd.compile import array_kernel, kernel
from tests.isas import address

BIG = 2**62 + 12345


@array_kernel
def one_of_each(cell):  # type: ignore[no-untyped-def]
    loaded = atomic_load(cell)
    before_add = atomic_add(cell, 5)
    before_exchange = atomic_exchange(cell, -7)
    failed = compare_and_swap(cell, 1, 99)
    kept = atomic_load(cell)
    swapped = compare_and_swap(cell, -7, 42)
    final = atomic_load(cell)
    atomic_store(cell, -1)
    return loaded, before_add, before_exchange, failed, kept, swapped, final


@kernel
def count(counter, n, by_swapping):  # type: ignore[no-untyped-def]
    for _ in range(n):
        if by_swapping:
            value = atomic_load(counter)
            while True:
                seen = compare_and_swap(counter, value, value + 1)
                if seen == value:
                    break
                value = seen
        else:
            atomic_add(counter, 1)


@kernel
def take_turns(turn, me, other, n, spins):  # type: ignore[no-untyped-def]
    """Two threads pass the turn back and forth; returns how often this one had it."""
    had = 0
    while had < n:
        waited = 0
        while atomic_load(turn) != me:
            waited += 1
            if waited < spins:
                pause()
            else:
                yield_processor()
        had += 1
        atomic_store(turn, other)
    return had


def test_what_they_return_and_store() -> None:
    cell = np.array([11, BIG, 13], np.int64)
    found = one_of_each(address(cell) + 8)
    assert found == (BIG, BIG, BIG + 5, -7, -7, -7, 42)
    assert cell.tolist() == [11, -1, 13]


@pytest.mark.parametrize("by_swapping", [False, True])
def test_threads_lose_no_increment(by_swapping: bool) -> None:
    counter = np.zeros(1, np.int64)
    count(address(counter), 1, by_swapping)  # compiled before the threads begin
    n = 100_000
    threads = [
        threading.Thread(target=count, args=(address(counter), n, by_swapping)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter[0] == 4 * n + 1


def test_waiting_threads_let_each_other_run() -> None:
    """More threads than this could be on one processor: yielding must pass the turn."""
    turn = np.zeros(1, np.int64)
    take_turns(address(turn), 0, 0, 1, 1)
    had = []
    threads = [
        threading.Thread(
            target=lambda i=i: had.append(take_turns(address(turn), i, (i + 1) % 3, 300, 100))
        )
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert had == [300] * 3
