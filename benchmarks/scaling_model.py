"""How long a step takes on any number of cores: a model of the executor, to be held against it.

A step is a list of operations, one after the other. An operation's chunks are taken in order by
whichever core is free; the next operation begins when the last chunk is done, and a barrier has
been passed. No operation is faster than memory gives what it reads.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operation:
    """What one operation of a tape costs a single core, in the chunks that many cores would take.

    ``seconds``: of all chunks together; ``chunks``: how large each is, in any unit; ``n_bytes``:
    what it reads from memory, which all cores share; ``each``: seconds that every core takes before
    its first chunk.
    """

    name: str
    seconds: float
    chunks: tuple[int, ...]
    n_bytes: int = 0
    each: float = 0.0

    def span(self, speeds: Sequence[float]) -> float:
        """Returns when the last chunk is done on cores of these speeds."""
        return makespan(self.durations(), speeds, self.each)

    def durations(self) -> list[float]:
        """Returns the seconds of each chunk, in the order in which they are taken."""
        unit = self.seconds / sum(self.chunks)
        return [unit * size for size in self.chunks]


@dataclass(frozen=True, slots=True)
class Memory:
    """The speed of memory in bytes/s for several cores: ``one`` and ``two`` are measured.

    A second core adds ``two - one``; how much the later ones add follows from that by Amdahl's law:
    n * one / (1 + (n - 1) * s), with s such that it is right for two. It never exceeds
    ``ceiling``, which is a property of the machine that one and two cores don't show.
    """

    one: float
    two: float
    ceiling: float = float("inf")

    @property
    def shared(self) -> float:
        """s: the part of a read during which others wait; 0 where two cores read twice as fast."""
        return max(0.0, 2 * self.one / self.two - 1)

    def speed(self, n_cores: int) -> float:
        together = n_cores * self.one / (1 + (n_cores - 1) * self.shared)
        return min(together, max(self.ceiling, self.one))


@dataclass(frozen=True, slots=True)
class Barrier:
    """Seconds from one operation to the next; ``one`` and ``two`` are measured.

    Every further core is taken to cost what the second does: it looks at the same counters.
    """

    one: float
    two: float

    def seconds(self, n_cores: int) -> float:
        return self.one + (n_cores - 1) * max(0.0, self.two - self.one)


def makespan(durations: Sequence[float], speeds: Sequence[float], each: float = 0.0) -> float:
    """Returns when the last chunk is done, if a core takes the next one whenever it is free.

    ``durations``: seconds on a core of speed 1, in the order of taking. ``speeds``: one for each
    core, which may be large and small ones. ``each``: what a core takes before its first chunk,
    once it has taken it.
    """
    free = [(0.0, i) for i in range(len(speeds))]
    waiting = dict.fromkeys(range(len(speeds)), each)
    end = 0.0
    for seconds in durations:
        now, i = heapq.heappop(free)
        done = now + (waiting.pop(i, 0.0) + seconds) / speeds[i]
        heapq.heappush(free, (done, i))
        end = max(end, done)
    return end


def step_seconds(
    operations: Sequence[Operation], speeds: Sequence[float], memory: Memory, barrier: Barrier
) -> float:
    """Returns how long a step takes on cores of these speeds (1: the one that was measured)."""
    n = len(speeds)
    return sum(
        max(op.span(speeds), op.n_bytes / memory.speed(n)) + barrier.seconds(n) for op in operations
    )


def losses(
    operations: Sequence[Operation], n_cores: int, memory: Memory, barrier: Barrier
) -> Mapping[str, float]:
    """Returns where the time of a step goes on equal cores, in seconds.

    ``work``: what it would take if all cores shared all of it evenly; ``chunks``: what every core
    does for itself, and waits for the last chunks of operations; ``memory``: what they wait for
    memory beyond; ``barriers``.
    """
    speeds = [1.0] * n_cores
    spans = [op.span(speeds) for op in operations]
    reads = [op.n_bytes / memory.speed(n_cores) for op in operations]
    even = sum(op.seconds + op.each for op in operations) / n_cores
    return {
        "work": even,
        "chunks": sum(spans) - even,
        "memory": sum(max(0.0, read - span) for read, span in zip(reads, spans, strict=True)),
        "barriers": len(operations) * barrier.seconds(n_cores),
    }
