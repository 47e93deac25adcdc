"""Timing the operations of tapes: which there are, in which chunks, and that all are still done."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lasting_team import LastingTeam
from benchmarks.slow_motion import NAP, nap
from benchmarks.system_calls import address_of
from benchmarks.tape_profile import (
    Step,
    Stepper,
    _Stamped,
    empty_seconds,
    measure_barrier,
    profile,
    totals,
)
from edgeqwen.executor import Call, Tape
from edgeqwen.model.chunks import CHUNKS_PER_THREAD
from tests.engines import write_model
from tests.isas import NATIVE

STEPS = (Step("decode", 1, 5), Step("prefill", 40, 0))
each_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


@pytest.fixture(scope="module")
def stepper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stepper]:
    path = write_model(tmp_path_factory.mktemp("model") / "m.gguf", types="Q8_0", vocab_size=1600)
    with closing(Stepper(path, 2)) as made:
        yield made


@each_step
def test_operations_and_their_chunks(stepper: Stepper, step: Step) -> None:
    with closing(LastingTeam(1)) as team:
        operations = profile(stepper.record(step, 3), team, 2)
    names = [op.name for op in operations]
    assert names[:2] == ["embed", "angles"]
    assert names[-1] == "logits product"
    assert (len(names) - 3) % stepper.n_layers == 0
    logits = operations[-1]
    # 100 tiles, in chunks for three threads; 96 columns of Q8_0.
    assert sum(logits.chunks) == 100
    assert set(logits.chunks[:-1]) == {100 // (3 * CHUNKS_PER_THREAD)}
    assert logits.n_bytes == 1600 * 96 * 34 // 32
    assert operations[0].chunks == (1,) * step.n_tokens
    assert operations[0].n_bytes == 0
    assert sum(op.n_bytes for op in operations) == stepper._engine.work.weight_bytes
    assert all(op.seconds >= 0 for op in operations)


@each_step
def test_a_step_is_recorded_anew_for_other_threads(stepper: Stepper, step: Step) -> None:
    chunks = {n: stepper.record(step, n).chunks()[-1] for n in (1, 2, 4)}
    assert [max(sizes) for sizes in chunks.values()] == [12, 6, 3]


@each_step
def test_a_stamped_step_computes_the_same(stepper: Stepper, step: Step) -> None:
    recorded = stepper.record(step, 2)
    # Stamped tapes are for one thread: what each thread does for itself is an operation there.
    with closing(LastingTeam(1)) as team:
        assert recorded.run(team) > 0
        before = stepper.logits()
        profile(recorded, team, 1)
    assert (stepper.logits() == before).all()
    assert len(np.unique(before)) > 100


def test_stamps_lie_an_operation_apart() -> None:
    # The first operation sleeps twice, 2 and 8 ms, the second once, 8 ms, the third 1 and 0 ms.
    tape, durations = Tape(), np.array([2000, 8000, 1000, 0], np.int32)
    slowness = np.full(2, 1000, np.int32)
    for i in range(3):
        arguments = {
            "usleep": address_of("usleep"),
            "durations": durations[i:].ctypes.data,
            "slowness": slowness.ctypes.data,
            "late": 0,
        }
        tape.add(nap, NATIVE, NAP, arguments, chunks=2 - i % 2)
    tape.finish()
    stamped = _Stamped(tape, NATIVE)
    with closing(LastingTeam(1)) as team:
        team.run(stamped, 1, 1)  # type: ignore[arg-type]
    assert (stamped.seconds() >= [0.010, 0.008, 0.001]).all()


def test_what_comes_before_an_operation_is_timed_apart() -> None:
    tape, durations = Tape(), np.array([3000, 9000], np.int32)
    slowness = np.full(2, 1000, np.int32)

    def arguments(i: int) -> dict[str, int]:
        return {
            "usleep": address_of("usleep"),
            "durations": durations[i:].ctypes.data,
            "slowness": slowness.ctypes.data,
            "late": 0,
        }

    tape.add(nap, NATIVE, NAP, arguments(0))
    tape.add(nap, NATIVE, NAP, arguments(0), prologue=Call.of(nap, NATIVE, NAP, arguments(1)))
    tape.finish()
    stamped = _Stamped(tape, NATIVE)
    assert (stamped.places, stamped.prologues) == ({0: 0, 1: 2}, {1: 1})
    with closing(LastingTeam(1)) as team:
        team.run(stamped, 1, 1)  # type: ignore[arg-type]
    assert (stamped.seconds() >= [0.003, 0.009, 0.003]).all()


def test_operations_of_a_name_are_summed(stepper: Stepper) -> None:
    with closing(LastingTeam(1)) as team:
        operations = profile(stepper.record(STEPS[0], 1), team, 3)
    found = totals(operations)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(sum(op.seconds + op.each for op in operations))
    assert set(found) == {op.name for op in operations}


def test_a_barrier_costs_something(stepper: Stepper) -> None:
    with closing(LastingTeam(1)) as one, closing(LastingTeam(2)) as two:
        barrier = measure_barrier(one, two)
        assert 0 < empty_seconds(one) < 1e-3
    assert 0 < barrier.one <= barrier.two


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"nothing\.gguf"):
        Stepper(tmp_path / "nothing.gguf", 1)
