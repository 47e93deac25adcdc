"""The thread team: one per model. It replays tapes, and sleeps when there is nothing to do.

The caller's thread is one of the team. The others spin for a moment after each step, then yield
the processor, then sleep on a semaphore; while they run or spin they don't hold the GIL.
"""

import functools
import os
import threading
from collections.abc import Callable

import numpy as np

from edgeqwen.errors import ClosedError, OptionError
from edgeqwen.executor.tape import Tape, replay
from edgeqwen.simd.atomics import (
    atomic_exchange,
    atomic_load,
    atomic_store,
    pause,
    yield_processor,
)
from edgeqwen.simd.compile import INT, kernel

# The job that all threads look at: int64 fields at these byte offsets.
EPOCH, OPERATIONS, N_OPERATIONS, COUNTERS, N_TOKENS, N_POSITIONS = range(0, 48, 8)
# Values of EPOCH that aren't steps.
CHANGING, CLOSED = 0, -1
# An idle thread spins, then yields, then sleeps: about 20 microseconds, about 2 milliseconds.
IDLE_SPINS, IDLE_YIELDS = 500, 4000
# A sleeping thread looks by itself this often: an exception may have swallowed its call.
LOOK_AFTER_SECONDS = 10.0
MAX_THREADS = 256


@kernel
def _serve(job, asleep, epoch, worker):  # type: ignore[no-untyped-def]
    """Takes part in every step until there has been none for a while, or the team is closed.

    Returns the last epoch seen, for the next call, or CLOSED.
    """
    atomic_store(asleep, 0)
    idle = 0
    while True:
        current = atomic_load(job + EPOCH)
        if current == CLOSED:
            return CLOSED
        if current not in (CHANGING, epoch):
            operations = atomic_load(job + OPERATIONS)
            n_operations = atomic_load(job + N_OPERATIONS)
            counters = atomic_load(job + COUNTERS)
            n_tokens = atomic_load(job + N_TOKENS)
            n_positions = atomic_load(job + N_POSITIONS)
            # The fields belong together only if no new job was begun while they were read.
            if atomic_load(job + EPOCH) == current:
                replay(operations, n_operations, counters, n_tokens, n_positions, current, worker)
                epoch = current
                idle = 0
            continue
        idle += 1
        if idle < IDLE_SPINS:
            pause()
        elif idle < IDLE_SPINS + IDLE_YIELDS:
            yield_processor()
        else:
            atomic_store(asleep, 1)
            # A step that began before the flag was up would not wake this thread. If the flag
            # is down again, somebody has released the semaphore, which must then be taken.
            if atomic_load(job + EPOCH) in (CHANGING, epoch) or atomic_exchange(asleep, 0) == 0:
                return epoch
            idle = 0


@kernel
def _step(job, epoch, operations, n_operations, counters, n_tokens, n_positions):  # type: ignore[no-untyped-def]
    """Publishes a step and does the caller's share of it.

    One call, so that no exception can come between: a step that was begun is always finished.
    """
    atomic_store(job + EPOCH, CHANGING)
    atomic_store(job + OPERATIONS, operations)
    atomic_store(job + N_OPERATIONS, n_operations)
    atomic_store(job + COUNTERS, counters)
    atomic_store(job + N_TOKENS, n_tokens)
    atomic_store(job + N_POSITIONS, n_positions)
    atomic_store(job + EPOCH, epoch)
    replay(operations, n_operations, counters, n_tokens, n_positions, epoch, 0)


@kernel
def _take_sleeper(asleep, n, stride):  # type: ignore[no-untyped-def]
    """Returns the number of a sleeping thread, marked as awake, or -1."""
    for i in range(n):
        if atomic_load(asleep + i * stride) == 1 and atomic_exchange(asleep + i * stride, 0) == 1:
            return i
    return -1


def default_threads() -> int:
    """Returns the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_THREADS)
    return min(os.cpu_count() or 1, MAX_THREADS)


class Team:
    """``n_threads`` threads that replay tapes together, the caller's included.

    One step at a time: ``run`` isn't reentrant, its caller holds a lock. Raises OptionError for a
    number of threads outside [1, 256].
    """

    def __init__(self, n_threads: int | None = None) -> None:
        n = default_threads() if n_threads is None else n_threads
        if not 1 <= n <= MAX_THREADS:
            raise OptionError(f"n_threads is {n}; it must be between 1 and {MAX_THREADS}")
        self.n_threads = n
        self._epoch = 0
        self._job = np.zeros(8, np.int64)
        self._asleep = np.zeros((n, 8), np.int64)  # a cache line for each thread
        self._wake = [threading.Semaphore(0) for _ in range(n - 1)]
        self._threads: list[threading.Thread] = []
        self._closed = False

    def kernels(self) -> dict[tuple[str, str], Callable[[], object]]:
        """Returns what a team compiles: by name, a function that does it."""
        n_arguments = {_serve: 4, _step: 7, _take_sleeper: 3}
        return {
            ("team", kernel.__name__): functools.partial(kernel.address, *(INT,) * n)
            for kernel, n in n_arguments.items()
        }

    def run(self, tape: Tape, n_tokens: int, n_positions: int) -> None:
        """Replays a finished tape and returns when all of it is done."""
        if self._closed:
            raise ClosedError("the model was closed; load it again to use it")
        if not self._threads:
            self._start()
        # A thread that falls asleep after this misses a step, and is woken for the next.
        self._wake_sleepers()
        self._epoch += 1
        _step(
            self._job.ctypes.data,
            self._epoch,
            tape.operations.ctypes.data,
            len(tape.operations),
            tape.counters.ctypes.data,
            n_tokens,
            n_positions,
        )

    def close(self) -> None:
        """Ends the threads. Tapes and the memory they point to must live until then."""
        if self._closed:
            return
        self._closed = True
        _step(self._job.ctypes.data, CLOSED, 0, 0, 0, 0, 0)
        self._wake_sleepers()
        for thread in self._threads:
            # A collection of garbage may bring one of the threads here.
            if thread is not threading.current_thread():
                thread.join()

    def _start(self) -> None:
        for i in range(self.n_threads - 1):
            thread = threading.Thread(
                target=self._work, args=(i,), name=f"edgeqwen-{i + 1}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def _wake_sleepers(self) -> None:
        n, address = self.n_threads - 1, self._asleep.ctypes.data
        while (i := _take_sleeper(address, n, 64)) >= 0:
            self._wake[i].release()

    def _work(self, i: int) -> None:
        epoch = 0
        while True:
            epoch = _serve(self._job.ctypes.data, self._asleep[i].ctypes.data, epoch, i + 1)
            if epoch == CLOSED:
                return
            self._wake[i].acquire(timeout=LOOK_AFTER_SECONDS)
