"""The tape: what is recorded, how many chunks an operation has, and that each is done once."""

import threading
from typing import Any

import numpy as np
import pytest

from edgeqwen.executor import Call, Tape, Team
from edgeqwen.executor.tape import MAX_CHUNKS, OPERATION
from tests.executor.kernels import (
    MOST_CHUNKS,
    WAIT,
    Ledger,
    account,
    all_take_part,
    in_time,
    meet,
    wait_for_flag,
)
from tests.isas import GENERIC_16, NATIVE, address

CHUNKS = [1, 16, 2, 64, 1, 3]


@pytest.mark.parametrize(("n_threads", "n_steps"), [(1, 500), (2, 10_000), (3, 5000), (8, 2000)])
def test_every_chunk_is_done_once_and_in_order(n_threads: int, n_steps: int) -> None:
    """Also with more threads than processors, where some are always a step or more behind."""
    ledger, team = Ledger(CHUNKS), Team(n_threads)
    all_take_part(team)
    in_time(lambda: ledger.run(team, n_steps))
    team.close()
    ledger.check()
    assert not ledger.workers[n_threads:].any()
    assert (ledger.workers > 0).sum() >= min(n_threads, 2)  # there was something to get wrong


@pytest.mark.parametrize("slow_worker", [0, 1])
def test_a_slow_thread_delays_only_what_it_has_taken(slow_worker: int) -> None:
    ledger, team = Ledger([16, 1, 64], slow_worker=slow_worker), Team(3)
    all_take_part(team)
    in_time(lambda: ledger.run(team, 300))
    team.close()
    ledger.check()


def test_two_tapes_in_turn() -> None:
    """A thread that is late meets the counters of another tape, and of its own at a later step."""
    first, second, team = Ledger([5, 1]), Ledger([1, 32, 7]), Team(4)
    all_take_part(team)

    def work() -> None:
        rng = np.random.default_rng(0)
        for _ in range(3000):
            first.run(team, int(rng.integers(0, 3)))
            second.run(team, int(rng.integers(0, 3)))

    in_time(work)
    team.close()
    first.check()
    second.check()


def test_a_pause_between_steps_changes_nothing() -> None:
    """Threads spin, yield or sleep by then: the next step finds them in all states."""
    ledger, team = Ledger([8, 3]), Team(3)
    for pause in (0, 1e-5, 1e-4, 1e-3, 3e-3, 2e-2) * 10:
        in_time(lambda: ledger.run(team, 1))
        threading.Event().wait(pause)
    team.close()
    ledger.check()


def test_many_teams_at_once() -> None:
    teams = [Team(3) for _ in range(4)]
    ledgers = [Ledger([4, 1, 20]) for _ in teams]
    threads = [
        threading.Thread(target=ledger.run, args=(team, 500), daemon=True)
        for ledger, team in zip(ledgers, teams, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    for ledger, team in zip(ledgers, teams, strict=True):
        team.close()
        ledger.check()


def counted(n_tokens: int, n_positions: int, **how: int) -> int:
    """Returns how many chunks a step has; all counted in the first MOST_CHUNKS."""
    flag, count = np.ones(1, np.int64), np.zeros(1, np.int64)
    tape, team = Tape(), Team(2)
    arguments = {"flag": address(flag), "count": address(count)}
    tape.add(wait_for_flag, NATIVE, WAIT, arguments, **how)  # type: ignore[arg-type]
    tape.finish()
    team.run(tape, n_tokens, n_positions)
    team.close()
    return int(count[0])


@pytest.mark.parametrize(
    ("how", "n_tokens", "n_positions", "expected"),
    [
        ({}, 7, 900, 1),
        ({"chunks": 5}, 7, 900, 5),
        ({"tokens_per_chunk": 1}, 7, 900, 7),
        ({"tokens_per_chunk": 4}, 8, 900, 2),
        ({"tokens_per_chunk": 4}, 9, 900, 3),
        ({"positions_per_chunk": 256}, 1, 256, 1),
        ({"positions_per_chunk": 256}, 1, 257, 2),
        ({"chunks": 3, "tokens_per_chunk": 4}, 5, 900, 6),
        ({"chunks": 3, "tokens_per_chunk": 4, "positions_per_chunk": 100}, 5, 201, 18),
        ({"chunks": 100_000}, 1, 1, 100_000),
    ],
)
def test_chunks_count_with_tokens_and_positions(
    how: dict[str, int], n_tokens: int, n_positions: int, expected: int
) -> None:
    assert counted(n_tokens, n_positions, **how) == expected


def test_steps_of_different_sizes_follow_each_other() -> None:
    flag, count = np.ones(1, np.int64), np.zeros(1, np.int64)
    tape, team = Tape(), Team(3)
    arguments = {"flag": address(flag), "count": address(count)}
    for _ in range(3):
        tape.add(wait_for_flag, NATIVE, WAIT, arguments, chunks=2, tokens_per_chunk=3)
    tape.finish()
    sizes = np.random.default_rng(0).integers(1, 40, 500)

    def work() -> None:
        for n in sizes:
            team.run(tape, int(n), 1)

    in_time(work)
    team.close()
    assert count[0] == 3 * (2 * -(-sizes // 3)).sum()


def test_an_empty_tape_is_done_at_once() -> None:
    tape, team = Tape(), Team(2)
    tape.finish()
    in_time(lambda: team.run(tape, 1, 1))
    team.close()


def test_what_is_recorded() -> None:
    tape = Tape()
    arguments = {"flag": 12, "count": -5}
    tape.add(wait_for_flag, NATIVE, WAIT, arguments, chunks=7, name="first")
    tape.add(wait_for_flag, GENERIC_16, WAIT, arguments, tokens_per_chunk=2)
    tape.add(wait_for_flag, NATIVE, WAIT, arguments, positions_per_chunk=3)
    assert tape.names == ["first", "wait_for_flag", "wait_for_flag"]
    assert len(tape.kernels()) == 2  # one for each token
    tape.finish()
    operations: Any = tape.operations
    assert operations.dtype == OPERATION
    assert operations["chunks"].tolist() == [7, 1, 1]
    assert operations["tokens_per_chunk"].tolist() == [0, 2, 0]
    assert operations["positions_per_chunk"].tolist() == [0, 0, 3]
    kernels = operations["kernel"]
    assert kernels[0] == kernels[2] != kernels[1]
    assert len(set(operations["args"])) == 3  # arguments are copied
    assert MAX_CHUNKS > 2**23 > MOST_CHUNKS


@pytest.mark.parametrize("arguments", [{}, {"flag": 1}, {"flag": 1, "count": 2, "other": 3}])
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(
        ValueError, match=r"account: arguments \[.*\] don't fit \('flag', 'count'\)"
    ):
        Tape().add(account, NATIVE, WAIT, arguments)


def test_each_thread_that_takes_part_begins_with_the_prologue() -> None:
    """Three threads meet in each chunk, so that each has one: as many calls, in every step."""
    counts, flags = np.zeros(3, np.int64), np.array([0, 3, 3], np.int64)
    flags[0] = 1  # a flag that is up: counts, and goes on
    prologue = Call.of(
        wait_for_flag, NATIVE, WAIT, {"flag": address(flags), "count": address(counts)}
    )
    tape = Tape()
    for i in (1, 2):
        arguments = {"flag": address(flags[i:]), "count": address(counts[i:])}
        called = prologue if i == 1 else None
        tape.add(meet, NATIVE, WAIT, arguments, chunks=3, prologue=called)
    assert len(tape.kernels()) == 2
    tape.finish()
    team = Team(3)
    for step in (1, 2):
        in_time(lambda: team.run(tape, 1, 1))
        assert counts[0] == 3 * step
        counts[1:] = 0
    team.close()


def test_whoever_has_no_chunk_calls_no_prologue() -> None:
    counts, flags = np.zeros(2, np.int64), np.ones(1, np.int64)
    fields = {"flag": address(flags), "count": address(counts)}
    tape = Tape()
    once = {"flag": address(flags), "count": address(counts[1:])}
    called = Call.of(wait_for_flag, NATIVE, WAIT, fields)
    tape.add(wait_for_flag, NATIVE, WAIT, once, chunks=1, prologue=called)
    tape.finish()
    team = Team(3)
    for _ in range(50):
        in_time(lambda: team.run(tape, 1, 1))
    team.close()
    assert counts.tolist() == [50, 50]
