"""Kernels that keep account of what the executor makes them do, and a tape of them."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeqwen.executor import Tape, Team
from edgeqwen.simd.atomics import (
    atomic_add,
    atomic_load,
    atomic_store,
    pause,
    yield_processor,
)
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.records import record, record_view
from tests.isas import NATIVE, address

MOST_CHUNKS = 64

ACCOUNT = record(
    "step",  # address of the step's number, from 0
    "counts",  # int64 [MOST_CHUNKS]: how often each chunk was done
    "done",  # int64: chunks done, in all steps
    "before",  # the same counter of the operation before, in the ring of operations
    "before_chunks",  # its chunks a step
    "before_late",  # 1 where that operation belongs to the step before
    "errors",
    "workers",  # int64 [256]: chunks done by each worker
    "slow_worker",  # takes its time over every chunk; -1: nobody does
)
account_view = record_view(ACCOUNT)

WAIT = record("flag", "count")
wait_view = record_view(WAIT)


@kernel
def account(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Counts, after checking that all of the operation before is done, and not more."""
    a = account_view(args)
    expected = (atomic_load(a.step) + 1 - a.before_late) * a.before_chunks
    if atomic_load(a.before) != expected:
        atomic_add(a.errors, 1)
    for _ in range(20):  # about a microsecond, so that there is something to share
        pause()
    if worker == a.slow_worker:
        for _ in range(50):
            yield_processor()
    atomic_add(a.counts + 8 * chunk, 1)
    atomic_add(a.workers + 8 * worker, 1)
    atomic_add(a.done, 1)


@kernel
def wait_for_flag(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Waits until somebody raises the flag."""
    a = wait_view(args)
    while atomic_load(a.flag) == 0:
        yield_processor()
    atomic_add(a.count, 1)


@kernel
def meet(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Ends when as many threads are here as the flag says: each chunk is one thread's."""
    a = wait_view(args)
    atomic_add(a.count, 1)
    while atomic_load(a.count) < atomic_load(a.flag):
        yield_processor()
    atomic_store(a.count, atomic_load(a.flag))


class Ledger:
    """A tape of accounts with the given numbers of chunks, and what came of it."""

    def __init__(self, chunks: list[int], *, slow_worker: int = -1) -> None:
        n = len(chunks)
        self.chunks = chunks
        self.step, self.errors = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self.counts, self.done = np.zeros((n, MOST_CHUNKS), np.int64), np.zeros(n, np.int64)
        self.workers = np.zeros(256, np.int64)
        self.tape = Tape()
        for i in range(n):
            arguments = {
                "step": address(self.step),
                "counts": address(self.counts[i]),
                "done": address(self.done[i:]),
                "before": address(self.done[i - 1 :]),
                "before_chunks": chunks[i - 1],
                "before_late": int(i == 0),
                "errors": address(self.errors),
                "workers": address(self.workers),
                "slow_worker": slow_worker,
            }
            self.tape.add(account, NATIVE, ACCOUNT, arguments, chunks=chunks[i])
        self.tape.finish()

    def run(self, team: Team, n_steps: int) -> None:
        """Runs steps one after the other."""
        for _ in range(n_steps):
            team.run(self.tape, 1, 1)
            self.step += 1

    def check(self) -> None:
        """Every chunk of every step was done once, in the tape's order."""
        n_steps = int(self.step[0])
        assert self.errors[0] == 0
        for counts, n_chunks in zip(self.counts, self.chunks, strict=True):
            assert (counts[:n_chunks] == n_steps).all()
            assert not counts[n_chunks:].any()
        assert self.done.tolist() == [n_steps * n for n in self.chunks]


def one_operation(kernel_: Any, **arguments: int) -> Tape:
    """Returns a finished tape of ``wait_for_flag`` or ``meet``."""
    tape = Tape()
    n_chunks = arguments.pop("chunks", 1)
    tape.add(kernel_, NATIVE, WAIT, arguments, chunks=n_chunks)
    tape.finish()
    return tape


def all_take_part(team: Team) -> None:
    """Runs a step that ends only when every thread of the team works on it at the same time."""
    flag, count = np.full(1, team.n_threads, np.int64), np.zeros(1, np.int64)
    tape = one_operation(meet, flag=address(flag), count=address(count), chunks=team.n_threads)
    in_time(lambda: team.run(tape, 1, 1), 60)


def in_time(work: Callable[[], object], seconds: float = 120) -> None:
    """Runs something that would hang if the executor did: fails instead."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"not done after {seconds} s"
    if failures:
        raise failures[0]
