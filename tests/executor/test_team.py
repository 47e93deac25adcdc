"""The thread team: threads that come, sleep, wake and go; and what it refuses."""

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgeqwen.errors import ClosedError, OptionError
from edgeqwen.executor import Team
from edgeqwen.executor import team as team_module
from edgeqwen.executor.team import default_threads
from tests.executor.kernels import (
    Ledger,
    all_take_part,
    in_time,
    one_operation,
    wait_for_flag,
)
from tests.isas import address


@pytest.fixture
def team() -> Iterator[Team]:
    made = Team(3)
    yield made
    in_time(made.close, 30)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.001)


def asleep(team: Team) -> int:
    return int(team._asleep[:, 0].sum())


def threads_of(before: set[threading.Thread]) -> list[str]:
    return sorted(t.name for t in set(threading.enumerate()) - before)


def test_threads_come_with_the_first_step_and_go_with_close() -> None:
    before = set(threading.enumerate())
    team = Team(3)
    assert threads_of(before) == []
    all_take_part(team)
    assert threads_of(before) == ["edgeqwen-1", "edgeqwen-2"]
    assert all(t.daemon for t in set(threading.enumerate()) - before)
    in_time(team.close, 30)
    assert threads_of(before) == []


def test_one_thread_needs_no_other() -> None:
    before = set(threading.enumerate())
    team, ledger = Team(1), Ledger([3, 1])
    ledger.run(team, 5)
    assert threads_of(before) == []
    team.close()
    ledger.check()


def test_sleeping_threads_wake(monkeypatch: pytest.MonkeyPatch, team: Team) -> None:
    """Because they are called, not because they look by themselves."""
    monkeypatch.setattr(team_module, "LOOK_AFTER_SECONDS", 1000.0)
    for _ in range(5):
        all_take_part(team)
        until(lambda: asleep(team) == 2)


def test_idle_threads_need_no_processor(team: Team) -> None:
    all_take_part(team)
    until(lambda: asleep(team) == 2)
    used = time.process_time()
    time.sleep(1)
    assert time.process_time() - used < 0.05


def test_a_call_that_was_lost_delays_and_does_not_hang(
    monkeypatch: pytest.MonkeyPatch, team: Team
) -> None:
    """As when an exception comes between lowering the flag and releasing the semaphore."""
    monkeypatch.setattr(team_module, "LOOK_AFTER_SECONDS", 0.05)
    all_take_part(team)
    for _ in range(3):
        until(lambda: asleep(team) == 2)
        team._asleep[:, 0] = 0
        all_take_part(team)


def test_an_interrupted_step_leaves_the_team_sound(
    monkeypatch: pytest.MonkeyPatch, team: Team
) -> None:
    ledger = Ledger([4, 1, 9])
    ledger.run(team, 3)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(team, "_wake_sleepers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            team.run(ledger.tape, 1, 1)
    # Begun and finished, or not begun at all: nothing in between.
    ledger.step[0] = ledger.done[0] // 4
    ledger.check()
    in_time(lambda: ledger.run(team, 50))
    ledger.check()


def test_python_runs_during_a_step(team: Team) -> None:
    flag, count = np.zeros(1, np.int64), np.zeros(1, np.int64)
    tape = one_operation(wait_for_flag, flag=address(flag), count=address(count), chunks=5)
    timer = threading.Timer(0.05, flag.fill, (1,))
    timer.start()
    in_time(lambda: team.run(tape, 1, 1))
    assert count[0] == 5


@pytest.mark.parametrize("state", ["never run", "spinning", "asleep"])
def test_closing(state: str) -> None:
    before = set(threading.enumerate())
    team, ledger = Team(3), Ledger([2, 1])
    if state != "never run":
        in_time(lambda: ledger.run(team, 2))
    if state == "asleep":
        until(lambda: asleep(team) == 2)
    in_time(team.close, 30)
    in_time(team.close, 30)  # again does nothing
    assert threads_of(before) == []
    with pytest.raises(ClosedError, match=r"^the model was closed; load it again to use it$"):
        team.run(ledger.tape, 1, 1)
    ledger.check()


def test_closing_while_threads_are_late() -> None:
    """More threads than processors: some are still in the last step, or the one before."""
    for _ in range(20):
        team, ledger = Team(8), Ledger([8, 1])
        in_time(functools.partial(ledger.run, team, 5))
        in_time(team.close, 30)
        ledger.check()


@pytest.mark.parametrize("n_threads", [0, -1, 257, 10**9])
def test_a_senseless_number_of_threads_is_refused(n_threads: int) -> None:
    with pytest.raises(OptionError) as caught:
        Team(n_threads)
    assert str(caught.value) == f"n_threads is {n_threads}; it must be between 1 and 256"


def test_the_default_is_what_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert default_threads() == Team().n_threads == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(1000)))
    assert default_threads() == 256
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert default_threads() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1


def test_what_a_team_compiles() -> None:
    team = Team(2)
    for compiled in team.kernels().values():
        compiled()
    assert len(team.kernels()) == 3
    team.close()
