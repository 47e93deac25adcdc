"""How edgeqwen scales to more cores than this machine has: a model, and what it is worth.

    python -m benchmarks.scaling model.gguf

What is measured: every operation of a step on one core, in the chunks that so many cores would
take; how fast one core and two read memory; what a barrier costs one and two. The model
(``scaling_model.py``) makes of it the speed on up to 16 cores. Where the machine has as many, the
speed is measured, too, and the page gives the error. The scheduler that hands out the chunks is
held against the model in slow motion, on more threads than there are cores (``slow_motion.py``).

What it takes for granted: cores that are all like the one measured, at the same clock however many
are at work, with as much second-level cache for each; barriers to which every further core adds as
much as the second; memory that is as fast as two cores let one expect, up to a ceiling that is
stated with every figure.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from benchmarks.guide_tasks import positive
from benchmarks.lasting_team import LastingTeam
from benchmarks.scaling_model import Barrier, Memory, Operation, losses, step_seconds
from benchmarks.slow_motion import Emulation, emulate, one_layer
from benchmarks.tape_profile import (
    DECODE,
    PREFILL,
    Recorded,
    Step,
    Stepper,
    measure_barrier,
    profile,
    totals,
)
from edgeqwen.roofline import Limits

CORES = (1, 2, 3, 4, 6, 8, 12, 16)
# GB/s that a machine's memory gives all cores together: two channels of DDR4-3200 and of DDR5-5600
# reach about so much, and a server's many channels are no limit to 16 cores.
CEILINGS = {"40 GB/s": 40e9, "75 GB/s": 75e9, "none": None}
# Cores by their speed; 0.5 and 0.4 are about what small cores reach beside large ones.
TEAMS = ((1.0,) * 2, (1.0,) * 4, (1.0,) * 8, (1.0,) * 16)
UNEQUAL_TEAMS = ((1.0,) * 4 + (0.5,) * 4, (1.0,) * 2 + (0.4,) * 8)


def measure(path: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """Returns the figures as JSON has them; None on a single CPU, which shows no scaling."""
    counts = [n for n in CORES if n <= machine.n_usable_cpus()]
    if 2 not in counts:
        return None
    with ExitStack() as stack:
        stepper = stack.enter_context(closing(Stepper(path, max(counts))))
        teams = {n: stack.enter_context(closing(LastingTeam(n))) for n in counts}
        memory, barrier = _memory(options.rounds), measure_barrier(teams[1], teams[2])
        found: dict[str, Any] = {
            "memory_bytes_per_s": {"1": memory.one, "2": memory.two},
            "barrier_s": {"1": barrier.one, "2": barrier.two},
            "ceilings_bytes_per_s": CEILINGS,
            "steps": {},
        }
        decode_on: dict[int, list[Operation]] = {}
        for step in (DECODE, PREFILL):
            measured = _measured(stepper, step, teams, options)
            on = {n: profile(stepper.record(step, n), teams[1], options.steps) for n in CORES}
            found["steps"][step.name] = predictions(step, on, measured, memory, barrier)
            decode_on = decode_on or on
        n_layers = stepper.n_layers
    found["emulations"] = [
        asdict(emulation)
        for emulation in emulations(decode_on, n_layers, options.seconds, options.rounds)
    ]
    return found


def predictions(
    step: Step,
    on: Mapping[int, Sequence[Operation]],
    measured: Mapping[int, float],
    memory: Memory,
    barrier: Barrier,
) -> dict[str, Any]:
    """Returns what the model says of a step beside what was measured, in tokens/s.

    ``on``: the step's operations in the chunks of so many cores; ``measured``: seconds by cores.
    ``error`` is that of the prediction without a ceiling, as a share of what was measured.
    """
    predicted = {
        name: {
            str(n): step.n_tokens
            / step_seconds(on[n], (1.0,) * n, _under(memory, ceiling), barrier)
            for n in on
        }
        for name, ceiling in CEILINGS.items()
    }
    speeds = {str(n): step.n_tokens / seconds for n, seconds in measured.items()}
    return {
        "n_tokens": step.n_tokens,
        "n_past": step.n_past,
        "measured_tps": speeds,
        "predicted_tps": predicted,
        "error": {n: predicted["none"][n] / tps - 1 for n, tps in speeds.items()},
        "losses_s": {str(n): dict(losses(on[n], n, memory, barrier)) for n in on},
        "operations_s": totals(on[1]),
        "n_operations": len(on[1]),
    }


def emulations(
    on: Mapping[int, Sequence[Operation]], n_layers: int, seconds: float, n_rounds: int
) -> list[Emulation]:
    """Lets the executor run a layer and the head of a decode step in slow motion, by each team."""
    found = []
    for speeds in (*TEAMS, *UNEQUAL_TEAMS):
        nearest = min(on, key=lambda n: abs(n - len(speeds)))
        operations = one_layer(on[nearest], n_layers)
        found.append(emulate(operations, speeds, seconds=seconds, n_rounds=n_rounds))
    return found


def _under(memory: Memory, ceiling: float | None) -> Memory:
    return memory if ceiling is None else Memory(memory.one, memory.two, ceiling)


def _memory(n_rounds: int) -> Memory:
    """Measures one core's speed of reading, and two's, in turns."""
    with ExitStack() as stack:
        both = [stack.enter_context(Limits(n, read_bytes=machine.BUFFER_BYTES)) for n in (1, 2)]
        for _ in range(max(3, n_rounds)):
            for limits in both:
                limits.measure()
        return Memory(*(limits.figures()["read_bytes_per_s"] for limits in both))


def _measured(
    stepper: Stepper, step: Step, teams: Mapping[int, LastingTeam], options: argparse.Namespace
) -> dict[int, float]:
    """Returns the seconds of a step by the number of cores, medians of rounds in turns."""
    recorded: dict[int, Recorded] = {n: stepper.record(step, n) for n in teams}
    seconds: dict[int, list[float]] = {n: [] for n in teams}
    for number in range(-1, options.rounds):
        for n, team in teams.items():
            runs = [recorded[n].run(team) for _ in range(options.steps)]
            if number >= 0:
                seconds[n] += runs
    return {n: median(values) for n, values in seconds.items()}


def show(found: Mapping[str, Any]) -> None:
    """Prints predictions and errors."""
    speeds = {n: speed / 1e9 for n, speed in found["memory_bytes_per_s"].items()}
    print(f"memory: {speeds['1']:.1f} GB/s by one core, {speeds['2']:.1f} by two")
    costs = {n: seconds * 1e9 for n, seconds in found["barrier_s"].items()}
    print(f"barrier: {costs['1']:.0f} ns on one core, {costs['2']:.0f} on two")
    for name, step in found["steps"].items():
        print(f"{name}, tokens/s")
        for n, tps in step["measured_tps"].items():
            print(f"  {n:>2} cores: {tps:.1f} measured, error {step['error'][n]:+.1%}")
        for ceiling, predicted in step["predicted_tps"].items():
            cells = ", ".join(f"{n}: {tps:.0f}" for n, tps in predicted.items())
            print(f"  memory's ceiling {ceiling}: {cells}")
    for emulation in found["emulations"]:
        ratio = emulation["executor_s"] / emulation["model_s"]
        print(f"slow motion on {speeds_text(emulation['speeds'])}: {ratio:.3f} of the model's time")


def speeds_text(speeds: Sequence[float]) -> str:
    """Returns cores by their speed in words."""
    counts = {speed: speeds.count(speed) for speed in speeds}
    parts = [
        ("1 core" if n == 1 else f"{n} cores") + ("" if speed == 1 else f" of speed {speed}")
        for speed, n in counts.items()
    ]
    return " and ".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=5, help="of a round (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round in slow motion (2)")
    options = parser.parse_args(arguments)
    if not options.model.is_file():
        parser.error(f"{options.model} is not a file")
    found = measure(options.model, options)
    if found is None:
        sys.exit("this machine has a single usable CPU: it shows nothing of how speed scales")
    show(found)


if __name__ == "__main__":
    main()
