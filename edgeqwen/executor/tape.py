"""The tape: operations recorded once by plain Python, replayed for every step by all threads.

An operation is a kernel's address, its arguments and a number of chunks. A thread takes chunks of
the current operation until none are left, waits until those that others took are finished, and
goes on to the next. Nobody waits for a *thread*: one that the system has put to sleep between two
chunks delays nothing, the others do its share, and when it comes back it runs ahead through what
is finished.

Both counters of an operation, chunks taken and chunks finished, carry the step's number (its
epoch) in their upper bits. A counter of an older epoch counts as zero, so nothing is ever reset;
a thread that meets a newer epoch than its own is late by a whole step and leaves.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.simd.atomics import atomic_load, compare_and_swap, pause, yield_processor
from edgeqwen.simd.calls import call_kernel
from edgeqwen.simd.compile import INT, inline_kernel
from edgeqwen.simd.records import record, record_view

OPERATION = record(
    "kernel",  # address of int32 f(result*, exception**, token, args, chunk, worker)
    "args",
    "chunks",
    "tokens_per_chunk",  # if not 0: chunks for every so many tokens of the step
    "positions_per_chunk",  # if not 0: chunks for every so many positions of the sequence
    "prologue",  # address of a kernel that each thread calls before its first chunk, or 0
    "prologue_args",
)
operation_view = record_view(OPERATION)
OPERATION_BYTES = OPERATION.itemsize

COUNT_BITS = 24
MAX_CHUNKS = (1 << COUNT_BITS) - 1
# A waiting thread spins this often before it lets other threads have the processor.
SPINS = 400
# Each operation's two counters stand in cache lines of their own.
COUNTER_BYTES = 64


@dataclass(frozen=True, slots=True)
class Call:
    """A kernel f(token, args, chunk, worker) with its token and its arguments."""

    kernel: Any
    token: Any
    arguments: NDArray[Any]

    @classmethod
    def of(
        cls, kernel: Any, token: Any, layout: np.dtype[Any], arguments: Mapping[str, int]
    ) -> "Call":
        """Fills a record of the dtype ``layout``, every field of it."""
        if set(arguments) != set(layout.names or ()):
            raise ValueError(
                f"{kernel.__name__}: arguments {sorted(arguments)} don't fit {layout.names}"
            )
        fields = [arguments[name] for name in layout.names or ()]
        return cls(kernel, token, np.array(fields, np.int64).view(layout))

    @property
    def key(self) -> tuple[str, str]:
        """What tells the machine code that is called from all other."""
        return self.kernel.__name__, self.token.token_name


class Tape:
    """A list of operations with the arguments they point to. Recorded once, never changed."""

    def __init__(self) -> None:
        self._recorded: list[tuple[Call, tuple[int, int, int], Call | None]] = []
        self.names: list[str] = []
        self.operations: NDArray[np.int64] = np.zeros(0, OPERATION)
        self.counters: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(
        self,
        kernel: Any,
        token: Any,
        layout: np.dtype[Any],
        arguments: Mapping[str, int],
        *,
        chunks: int = 1,
        tokens_per_chunk: int = 0,
        positions_per_chunk: int = 0,
        prologue: "Call | None" = None,
        name: str = "",
    ) -> None:
        """Records an operation.

        ``kernel`` has the signature f(token, args, chunk, worker), and is compiled for the type of
        ``token`` when the tape is finished; ``arguments`` fills a record of the dtype ``layout``,
        every field of it. The operation has ``chunks`` chunks, times ceil(tokens /
        tokens_per_chunk) and ceil(positions / positions_per_chunk) where those aren't 0.
        ``prologue`` is called by each thread that takes part, with chunk 0, before its first
        chunk: what all of them need is computed by each sooner than they wait for one.
        """
        call = Call.of(kernel, token, layout, arguments)
        self._recorded.append((call, (chunks, tokens_per_chunk, positions_per_chunk), prologue))
        self.names.append(name or kernel.__name__)

    @property
    def is_finished(self) -> bool:
        return len(self.operations) > 0

    def kernels(self) -> dict[tuple[str, str], Callable[[], int]]:
        """Returns what must be compiled: by kernel and token, a function that does it."""
        calls = [c for call, _, prologue in self._recorded for c in (prologue, call) if c]
        return {c.key: functools.partial(c.kernel.address, c.token, INT, INT, INT) for c in calls}

    def finish(self) -> None:
        """Compiles the kernels and lays the operations out; nothing can be added afterwards."""
        addresses = {key: compiled() for key, compiled in self.kernels().items()}

        def place(call: Call | None) -> tuple[int, int]:
            return (addresses[call.key], call.arguments.ctypes.data) if call else (0, 0)

        self.operations = np.array(
            [
                (*place(call), *chunks, *place(prologue))
                for call, chunks, prologue in self._recorded
            ],
            OPERATION,
        )
        self.counters = np.zeros(len(self._recorded) * 2 * COUNTER_BYTES // 8, np.int64)


@inline_kernel
def _take(counter, epoch, n_chunks):  # type: ignore[no-untyped-def]
    """Returns the next chunk, -1 when all are taken, -2 when this thread is a step late."""
    value = atomic_load(counter)
    while True:
        tag = value >> COUNT_BITS
        if tag > epoch:
            return -2
        count = value & MAX_CHUNKS if tag == epoch else 0
        if count >= n_chunks:
            return -1
        seen = compare_and_swap(counter, value, (epoch << COUNT_BITS) | (count + 1))
        if seen == value:
            return count
        value = seen


@inline_kernel
def _finish(counter, epoch, n):  # type: ignore[no-untyped-def]
    """Counts ``n`` more chunks as finished. The epoch can't have passed: they were not."""
    value = atomic_load(counter)
    while True:
        count = value & MAX_CHUNKS if value >> COUNT_BITS == epoch else 0
        seen = compare_and_swap(counter, value, (epoch << COUNT_BITS) | (count + n))
        if seen == value:
            return
        value = seen


@inline_kernel
def _wait(counter, epoch, n_chunks):  # type: ignore[no-untyped-def]
    """Waits until all chunks are finished; returns False when this thread is a step late."""
    spins = 0
    while True:
        value = atomic_load(counter)
        tag = value >> COUNT_BITS
        if tag > epoch:
            return False
        if tag == epoch and value & MAX_CHUNKS >= n_chunks:
            return True
        spins += 1
        if spins < SPINS:
            pause()
        else:
            yield_processor()


@inline_kernel
def replay(operations, n_operations, counters, n_tokens, n_positions, epoch, worker):  # type: ignore[no-untyped-def]
    """Does this thread's share of one step.

    The numbers of tokens and positions are those of the epoch, not read from the step's state:
    a late thread must count chunks as they were counted then.
    """
    for i in range(n_operations):
        op = operation_view(operations + i * OPERATION_BYTES)
        n_chunks = op.chunks
        if op.tokens_per_chunk != 0:
            n_chunks *= (n_tokens + op.tokens_per_chunk - 1) // op.tokens_per_chunk
        if op.positions_per_chunk != 0:
            n_chunks *= (n_positions + op.positions_per_chunk - 1) // op.positions_per_chunk
        taken = counters + 2 * i * COUNTER_BYTES
        finished = taken + COUNTER_BYTES
        n = 0
        while True:
            chunk = _take(taken, epoch, n_chunks)
            if chunk == -2:
                return
            if chunk == -1:
                break
            if n == 0 and op.prologue != 0:
                call_kernel(op.prologue, op.prologue_args, 0, worker)
            call_kernel(op.kernel, op.args, chunk, worker)
            n += 1
        if n != 0:
            _finish(finished, epoch, n)
        if not _wait(finished, epoch, n_chunks):
            return
