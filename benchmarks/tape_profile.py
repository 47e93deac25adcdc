"""How long each operation of a model's tapes takes, and what a barrier between two costs.

Between every two operations stands one that writes down the time. A tape is recorded for any number
of threads and run by one or more: the chunks of sixteen threads can be timed on a single core.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lasting_team import LastingTeam
from benchmarks.scaling_model import Barrier, Operation
from benchmarks.system_calls import address_of, call_with_two
from edgeqwen.engine import Engine
from edgeqwen.executor import Tape
from edgeqwen.gguf_file import GgufFile
from edgeqwen.model.steps import PREFILL_TOKENS
from edgeqwen.simd.atomics import pause
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.isa import current_isa
from edgeqwen.simd.records import record, record_view

STAMP = record(
    "gettime",  # address of clock_gettime
    "clock",  # the system's number of a clock
    "time",  # int64 [2]: seconds and nanoseconds
)
stamp_view = record_view(STAMP)
IDLE = record("n_pauses")
idle_view = record_view(IDLE)
PAUSES = 50


@kernel
def stamp(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Writes down the time."""
    a = stamp_view(args)
    call_with_two(a.gettime, a.clock, a.time)


@kernel
def idle(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Pauses so often, or not at all: then what is left is the executor's own cost."""
    for _ in range(idle_view(args).n_pauses):
        pause()


@dataclass(frozen=True, slots=True)
class Step:
    """Tokens that go through the network together, and those before them in the context."""

    name: str
    n_tokens: int
    n_past: int


DECODE = Step("decode", 1, 64)
PREFILL = Step("prefill", PREFILL_TOKENS, 0)


class Stepper:
    """A model whose steps are recorded for any number of threads, and run by as many or fewer.

    It must be closed after the teams that ran them.
    """

    def __init__(self, path: Path, n_threads: int) -> None:
        """``n_threads``: the most that a step is run by."""
        self._file = GgufFile.open(path)
        self._engine = Engine(self._file, n_threads=n_threads, max_context=PREFILL_TOKENS)
        self._engine.wait_until_loaded()
        self._sequence = self._engine.new_sequence()
        random = np.random.default_rng(0)
        vocab_size = self._engine.config.vocab_size
        self._tokens = random.integers(0, vocab_size, PREFILL_TOKENS, np.int32)
        self.n_layers = self._engine.config.n_layers

    def record(self, step: Step, n_threads: int) -> "Recorded":
        """Records a step in the chunks that so many threads would take."""
        # What the engine has recorded is for its own threads.
        recorder = self._engine._recorder
        recorder.n_threads, own = n_threads, recorder.n_threads
        try:
            tape, self._buffers = self._engine._steps.record(step.name)
        finally:
            recorder.n_threads = own
        tape.finish()
        return Recorded(step, tape, self)

    def prepare(self, step: Step) -> None:
        """Says what the next step is about, as the engine does it."""
        state = self._engine._recorder.state
        state["n_tokens"], state["n_past"] = step.n_tokens, step.n_past
        segments = self._sequence.reserve(step.n_past + step.n_tokens)
        state["tokens"], state["segments"] = self._tokens.ctypes.data, segments

    def matrix_bytes(self) -> dict[int, int]:
        """Returns the bytes of each weight matrix by its address."""
        weights = self._engine._weights
        matrices = [
            matrix
            for layer in weights.layers
            for matrix in (*layer.qkv, layer.o_proj, *layer.gate_up, layer.down_proj)
        ]
        return {matrix.address: matrix.n_bytes for matrix in (*matrices, weights.head)}

    def logits(self) -> NDArray[np.float32]:
        """Returns float32 [vocab_size], what the last step has computed."""
        return self._buffers.logits(1, self._engine.config.vocab_size)[0].copy()

    def close(self) -> None:
        self._sequence.close()
        self._engine.close()
        self._file.close()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded step of a model."""

    step: Step
    tape: Tape
    stepper: Stepper

    def run(self, team: LastingTeam, tape: Tape | None = None) -> float:
        """Runs the step, or another tape of it; returns the seconds it took."""
        self.stepper.prepare(self.step)
        began = time.perf_counter()
        team.run(tape or self.tape, self.step.n_tokens, self.step.n_past + self.step.n_tokens)
        return time.perf_counter() - began

    def chunks(self) -> list[tuple[int, ...]]:
        """Returns the sizes of each operation's chunks: tiles of products, otherwise all alike."""
        found = []
        for call, (n_chunks, per_tokens, per_positions), _ in self.tape._recorded:
            arguments = call.arguments
            if _is_product(arguments):
                n, size = int(arguments["n_tiles"][0]), int(arguments["tiles_per_chunk"][0])
                found.append(tuple(min(size, n - first) for first in range(0, n, size)))
                continue
            if per_tokens:
                n_chunks *= -(-self.step.n_tokens // per_tokens)
            if per_positions:
                n_chunks *= -(-(self.step.n_past + self.step.n_tokens) // per_positions)
            found.append((1,) * n_chunks)
        return found

    def n_bytes(self) -> list[int]:
        """Returns the bytes of weights that each operation reads; the caches hold the rest."""
        sizes = self.stepper.matrix_bytes()
        return [
            sizes[int(call.arguments["weights"][0])] if _is_product(call.arguments) else 0
            for call, *_ in self.tape._recorded
        ]


def _is_product(arguments: NDArray[Any]) -> bool:
    """Whether an operation's record is that of a product of a weight matrix."""
    return {"weights", "n_tiles", "tiles_per_chunk"} <= set(arguments.dtype.names or ())


def profile(recorded: Recorded, team: LastingTeam, n_steps: int) -> list[Operation]:
    """Returns the tape's operations with the median of the seconds that each took a team of one.

    What the executor itself takes between two operations isn't in them.
    """
    stamped = _Stamped(recorded.tape, current_isa())
    seconds = []
    for _ in range(n_steps + 1):
        recorded.run(team, stamped)  # type: ignore[arg-type]
        seconds.append(stamped.seconds())
    # The first step compiles nothing any more, but it fills the caches. A stamp is an operation,
    # too: what it and an empty one take is taken off.
    overhead = 2 * empty_seconds(team)
    medians = np.maximum(np.median(seconds[1:], axis=0) - overhead, 0.0).tolist()
    found = []
    for i, (name, chunks, n_bytes) in enumerate(
        zip(recorded.tape.names, recorded.chunks(), recorded.n_bytes(), strict=True)
    ):
        each = medians[stamped.prologues[i]] if i in stamped.prologues else 0.0
        found.append(Operation(name, medians[stamped.places[i]], chunks, n_bytes, each))
    return found


def measure_barrier(one: LastingTeam, two: LastingTeam) -> Barrier:
    """Returns what the executor takes from one operation to the next on one core, and on two.

    Two threads that had nothing to do would not wait for one another: each has a chunk of some two
    microseconds, and what an operation takes them beyond that is the second core's cost.
    """
    alone = _operation_seconds(one, PAUSES, chunks=1)
    together = _operation_seconds(two, PAUSES, chunks=2)
    empty = empty_seconds(one)
    return Barrier(empty, empty + max(0.0, together - alone))


def empty_seconds(team: LastingTeam) -> float:
    """Returns the seconds of an operation of a single chunk that does nothing."""
    return _operation_seconds(team, 0, chunks=1)


def _operation_seconds(team: LastingTeam, n_pauses: int, *, chunks: int) -> float:
    """Returns the seconds of an operation whose chunks pause so often, over many in a row."""
    tape, n_operations = Tape(), 1000
    for _ in range(n_operations):
        tape.add(idle, current_isa(), IDLE, {"n_pauses": n_pauses}, chunks=chunks)
    tape.finish()
    seconds = []
    for _ in range(16):
        began = time.perf_counter()
        team.run(tape, 1, 1)
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:]) / n_operations


class _Stamped:
    """A tape's operations with a stamp before the first, and after each; for one thread.

    What a thread does before its first chunk of an operation is an operation of its own here.
    ``places`` and ``prologues``: where an operation and what comes before it are, by its number.
    """

    def __init__(self, tape: Tape, isa: Any) -> None:
        rows, self.places, self.prologues = [], {}, {}
        for i, row in enumerate(tape.operations):
            if row["prologue"]:
                self.prologues[i] = len(rows)
                rows.append((row["prologue"], row["prologue_args"], 1, 0, 0, 0, 0))
            self.places[i] = len(rows)
            rows.append((*row.tolist()[:5], 0, 0))
        n = len(rows)
        self._times: NDArray[np.int64] = np.zeros((n + 1, 2), np.int64)
        self._stamps = Tape()
        for time_ in self._times:
            arguments = {
                "gettime": address_of("clock_gettime"),
                "clock": time.CLOCK_MONOTONIC,
                "time": time_.ctypes.data,
            }
            self._stamps.add(stamp, isa, STAMP, arguments)
        self._stamps.finish()
        self.operations = np.zeros(2 * n + 1, tape.operations.dtype)
        self.operations[0::2] = self._stamps.operations
        self.operations[1::2] = np.array(rows, tape.operations.dtype)
        self.counters: NDArray[np.int64] = np.zeros((2 * n + 1) * 16, np.int64)

    def seconds(self) -> NDArray[np.float64]:
        """Returns the seconds between the stamps of the last run."""
        return np.diff(self._times[:, 0] + self._times[:, 1] * 1e-9)


def totals(operations: Sequence[Operation]) -> dict[str, float]:
    """Returns the seconds of all operations of a name together, the longest first."""
    found: dict[str, float] = {}
    for op in operations:
        found[op.name] = found.get(op.name, 0.0) + op.seconds + op.each
    return dict(sorted(found.items(), key=lambda item: -item[1]))
