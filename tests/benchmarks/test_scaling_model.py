"""The model of the executor: chunks on equal and unequal cores, memory, barriers."""

import itertools

import numpy as np
import pytest

from benchmarks.scaling_model import Barrier, Memory, Operation, losses, makespan, step_seconds


def by_ticks(durations: list[int], periods: list[int]) -> int:
    """Another way to the same: time goes by tick by tick, and whoever is free takes a chunk."""
    left, busy_until, tick = list(durations), [0] * len(periods), 0
    while left or max(busy_until) > tick:
        for i, period in enumerate(periods):
            if left and busy_until[i] <= tick:
                busy_until[i] = tick + left.pop(0) * period
        tick += 1
    return max(busy_until)


@pytest.mark.parametrize("periods", [[1], [1, 1], [1, 1, 1, 1], [1, 1, 2, 2], [2, 5, 5]])
def test_the_makespan_is_that_of_taking_turns(periods: list[int]) -> None:
    rng = np.random.default_rng(len(periods))
    for n in (1, 3, 8, 17):
        durations = rng.integers(1, 9, n).tolist()
        found = makespan(durations, [1 / period for period in periods])
        assert found == pytest.approx(by_ticks(durations, periods))


@pytest.mark.parametrize(
    ("n_chunks", "n_cores", "expected"), [(8, 2, 4), (9, 2, 5), (56, 16, 4), (1, 8, 1), (0, 3, 0)]
)
def test_equal_chunks_are_done_in_rounds(n_chunks: int, n_cores: int, expected: int) -> None:
    assert makespan([1.0] * n_chunks, [1.0] * n_cores) == expected


def test_every_core_has_something_to_do_before_its_first_chunk() -> None:
    assert makespan([1.0] * 4, [1.0, 1.0], 0.5) == 2.5
    assert makespan([1.0] * 4, [1.0, 0.25], 0.5) == 6.0  # a chunk is taken before
    assert makespan([1.0], [1.0] * 3, 0.5) == 1.5
    operation = Operation("product", 8.0, (1,) * 8, each=2.0)
    assert operation.span([1.0, 1.0]) == 6.0
    nothing = Barrier(0.0, 0.0)
    found = losses([operation], 2, Memory(1.0, 2.0), nothing)
    assert (found["work"], found["chunks"]) == (5.0, 1.0)


def test_chunks_share_an_operations_time_by_their_size() -> None:
    assert Operation("product", 9.0, (4, 4, 1)).durations() == [4.0, 4.0, 1.0]


def test_memory_of_one_and_two_cores_is_as_measured() -> None:
    memory = Memory(16.0, 24.0)
    assert [memory.speed(n) for n in (1, 2)] == pytest.approx([16.0, 24.0])
    # A third of a read is done while others wait: no number of cores reads three times as fast.
    assert memory.speed(1000) == pytest.approx(48.0, rel=0.01)
    assert all(memory.speed(n) < memory.speed(n + 1) for n in range(1, 16))


def test_memory_has_a_ceiling_above_what_one_core_reads() -> None:
    assert [Memory(16.0, 32.0, 40.0).speed(n) for n in (1, 2, 3, 8)] == [16, 32, 40, 40]
    assert Memory(16.0, 32.0, 10.0).speed(4) == 16
    assert Memory(16.0, 40.0).speed(4) == 64  # more than twice as fast is a measuring error


def test_further_cores_make_barriers_dearer_as_the_second_did() -> None:
    barrier = Barrier(20.0, 250.0)
    assert [barrier.seconds(n) for n in (1, 2, 3)] == [20.0, 250.0, 480.0]
    assert Barrier(20.0, 10.0).seconds(16) == 20.0


OPERATIONS = (
    Operation("norm", 1.0, (1,)),
    Operation("product", 16.0, (4, 4, 4, 4), n_bytes=80),
    Operation("product", 8.0, (1,) * 8, n_bytes=10),
)


def test_a_step_waits_for_chunks_or_for_memory_and_for_barriers() -> None:
    memory, barrier = Memory(10.0, 16.0), Barrier(0.25, 0.5)
    # On two cores: 1; memory's 80 / 16 = 5 against 8 of chunks; 4 against less; three barriers.
    assert step_seconds(OPERATIONS, [1.0, 1.0], memory, barrier) == pytest.approx(13 + 1.5)
    slow = Memory(4.0, 8.0)
    assert step_seconds(OPERATIONS, [1.0, 1.0], slow, barrier) == pytest.approx(1 + 10 + 4 + 1.5)
    # A core of half the speed takes a third of the second product: 4 of 12.
    assert step_seconds(OPERATIONS[1:2], [1.0, 0.5], memory, barrier) == pytest.approx(12.5)


@pytest.mark.parametrize("n_cores", [1, 2, 3, 16])
def test_losses_add_up_to_the_step(n_cores: int) -> None:
    for memory, barrier in itertools.product(
        (Memory(10.0, 16.0), Memory(1.0, 2.0)), (Barrier(0.0, 0.0), Barrier(0.1, 0.3))
    ):
        found = losses(OPERATIONS, n_cores, memory, barrier)
        expected = step_seconds(OPERATIONS, [1.0] * n_cores, memory, barrier)
        assert sum(found.values()) == pytest.approx(expected)
        assert found["work"] == 25.0 / n_cores
        assert min(found.values()) >= 0
