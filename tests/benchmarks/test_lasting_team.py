"""The team of benchmarks: a tape that it ran lives as long as its threads."""

import gc
import weakref
from contextlib import closing

import numpy as np

from benchmarks.lasting_team import LastingTeam
from edgeqwen.executor import Tape
from tests.executor.kernels import WAIT, wait_for_flag
from tests.isas import NATIVE, address


def test_a_tape_lives_until_the_team_is_gone() -> None:
    flag, count = np.ones(1, np.int64), np.zeros(1, np.int64)

    def run(team: LastingTeam) -> "weakref.ref[Tape]":
        tape = Tape()
        tape.add(wait_for_flag, NATIVE, WAIT, {"flag": address(flag), "count": address(count)})
        tape.finish()
        team.run(tape, 1, 1)
        return weakref.ref(tape)

    team = LastingTeam(3)
    with closing(team):
        tapes = [run(team) for _ in range(20)]
        gc.collect()
        assert all(tape() is not None for tape in tapes)
        assert count[0] == 20
    del team
    gc.collect()
    assert all(tape() is None for tape in tapes)
