"""The executor in slow motion: chunks that sleep as long as they should, on many threads."""

from contextlib import closing

import numpy as np
import pytest

from benchmarks import slow_motion
from benchmarks.lasting_team import LastingTeam
from benchmarks.scaling_model import Operation, makespan
from benchmarks.slow_motion import emulate, one_layer

OPERATIONS = (Operation("norm", 0.1, (1,)), Operation("product", 2.0, (3, 3, 3, 1)))


@pytest.mark.parametrize(("n_chunks", "n_threads"), [(7, 3), (5, 1), (2, 8)])
def test_no_chunk_is_done_early(n_chunks: int, n_threads: int) -> None:
    """However busy the machine is, sleepers never come too early."""
    slowness = np.full(n_threads, 1500, np.int32)
    with closing(LastingTeam(n_threads)) as team:
        seconds = slow_motion._run(team, [np.full(n_chunks, 2000, np.int32)] * 2, slowness, 0)
    assert seconds >= 2 * makespan([0.003] * n_chunks, [1.0] * n_threads)


def test_a_slow_core_sleeps_longer() -> None:
    with closing(LastingTeam(1)) as team:
        durations, slowness = [np.full(4, 2000, np.int32)], np.full(1, 10_000, np.int32)
        assert slow_motion._run(team, durations, slowness, 0) >= 4 * 0.02


@pytest.mark.parametrize("speeds", [(1.0,) * 3, (1.0, 0.5)])
def test_the_figures_are_in_true_time(speeds: tuple[float, ...]) -> None:
    found = emulate(OPERATIONS, speeds, seconds=0.05, n_rounds=1)
    assert found.speeds == speeds
    expected = sum(makespan(op.durations(), speeds) for op in OPERATIONS)
    assert found.model_s == pytest.approx(expected, rel=0.01)
    assert found.times_slower == pytest.approx(0.05 / expected)
    assert found.even_s == pytest.approx(2.1 / sum(speeds), rel=0.01)
    assert found.executor_s > 0


def test_one_layer_of_several() -> None:
    layer = ["norm", "qkv product", "x product", "norm", "x product"]
    names = ["embed", "angles", *layer * 4, "norm", "logits product"]
    found = one_layer([Operation(name, 1.0, (1,)) for name in names], 4)
    assert [op.name for op in found] == ["embed", "angles", *layer, "norm", "logits product"]
