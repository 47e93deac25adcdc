"""The executor in slow motion: chunks that only sleep, on more threads than there are cores.

What a thread sleeps is what a chunk would take its core, many times over. So the executor itself,
with its counters and its waiting, hands out the chunks of sixteen cores on two, of large and small
ones too, and the model of it in ``scaling_model`` can be held against it. What cores share, memory
and power, isn't in it.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from benchmarks.lasting_team import LastingTeam
from benchmarks.scaling_model import Operation, makespan
from benchmarks.system_calls import address_of, call_with_one
from edgeqwen.executor import Tape
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.isa import current_isa
from edgeqwen.simd.ops import peek_i32
from edgeqwen.simd.records import record, record_view

NAP = record(
    "usleep",  # address of the system's function of that name
    "durations",  # int32 [chunks]: microseconds on a core of speed 1
    "slowness",  # int32 [workers]: how much longer each worker takes, in thousandths
    "late",  # microseconds by which a sleeper usually comes too late: it goes so much earlier
)
nap_view = record_view(NAP)


@kernel
def nap(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Sleeps as long as a chunk takes a worker."""
    a = nap_view(args)
    slowness = np.int64(peek_i32(a.slowness + 4 * worker))
    microseconds = np.int64(peek_i32(a.durations + 4 * chunk)) * slowness // 1000
    call_with_one(a.usleep, max(0, microseconds - a.late))


@dataclass(frozen=True, slots=True)
class Emulation:
    """Seconds that a step takes cores of these speeds: by the model, and by the executor.

    The executor's are those of its fastest round, for what comes between only adds to them.
    ``even_s``: if all work could be shared evenly. All are in true time, not in slow motion.
    """

    speeds: tuple[float, ...]
    model_s: float
    executor_s: float
    even_s: float
    times_slower: float


def emulate(
    operations: Sequence[Operation], speeds: Sequence[float], *, seconds: float, n_rounds: int
) -> Emulation:
    """Lets the executor sleep through operations; one round takes about ``seconds``."""
    expected = sum(makespan(op.durations(), speeds) for op in operations)
    times_slower = seconds / expected
    slowed = [_microseconds(op, times_slower) for op in operations]
    slowness = np.array([round(1000 / speed) for speed in speeds], np.int32)
    with closing(LastingTeam(len(speeds))) as team:
        # The threads begin with a sleep that all have a part in.
        _run(team, [np.full(4 * len(speeds), 2000, np.int32)], slowness, 0)
        late = _lateness(team)
        found = [_run(team, slowed, slowness, late) for _ in range(n_rounds)]
    # What whole microseconds take, not what they were rounded from.
    model = sum(makespan([int(us) / 1e6 for us in durations], speeds) for durations in slowed)
    work = sum(int(durations.sum()) for durations in slowed) / 1e6
    return Emulation(
        tuple(speeds),
        model_s=model / times_slower,
        executor_s=min(found) / times_slower,
        even_s=work / sum(speeds) / times_slower,
        times_slower=times_slower,
    )


def one_layer(operations: Sequence[Operation], n_layers: int) -> list[Operation]:
    """Returns the operations of a tape with its first layer only.

    Before the layers, there are two operations; a layer ends with a product that is added to x.
    """
    end = max(i for i, op in enumerate(operations) if op.name == "x product") + 1
    return [*operations[: 2 + (end - 2) // n_layers], *operations[end:]]


def _microseconds(op: Operation, times_slower: float) -> np.ndarray:
    return np.array([round(s * times_slower * 1e6) for s in op.durations()], np.int32)


def _lateness(team: LastingTeam) -> int:
    """Returns by how many microseconds a sleeper comes too late, as a rule."""
    naps = [np.full(1, 500, np.int32) for _ in range(100)]
    seconds = _run(team, naps, np.full(team.n_threads, 1000, np.int32), 0)
    return max(0, round(1e6 * seconds / len(naps)) - 500)


def _run(
    team: LastingTeam, durations: Sequence[np.ndarray], slowness: np.ndarray, late: int
) -> float:
    """Records operations of these chunks and runs them once; returns the seconds."""
    tape = Tape()
    for chunks in durations:
        arguments = {
            "usleep": address_of("usleep"),
            "durations": chunks.ctypes.data,
            "slowness": slowness.ctypes.data,
            "late": late,
        }
        tape.add(nap, current_isa(), NAP, arguments, chunks=len(chunks))
    tape.finish()
    began = time.perf_counter()
    team.run(tape, 1, 1)
    return time.perf_counter() - began
