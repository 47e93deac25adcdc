"""Sequences in memory: forks share what is full, and never see what the other writes."""

import ctypes
import random

import numpy as np
import pytest

from edgeqwen.cache import MemoryStore, Sequence
from edgeqwen.cache.store import Segment, SharedSegment
from edgeqwen.errors import ClosedError, OptionError
from tests.cache.filled import LAYOUT, create, extend, holds, random_ids


def store_of(tokens: list[int]) -> MemoryStore:
    store = MemoryStore(LAYOUT)
    extend(store, tokens)
    return store


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 600])
def test_a_fork_and_its_source_go_on_apart(n: int) -> None:
    tokens = random_ids(600)
    source = store_of(tokens)
    fork = source.fork(n)
    assert holds(fork, tokens[:n])
    extend(fork, random_ids(300, 1))
    assert holds(source, tokens)
    source.truncate(n // 2)
    extend(source, random_ids(400, 2))
    assert holds(fork, tokens[:n] + random_ids(300, 1))
    assert holds(source, tokens[: n // 2] + random_ids(400, 2))


def test_full_segments_are_shared_until_one_is_written_to() -> None:
    source = store_of(random_ids(600))
    fork = source.fork(600)
    addresses = [segment.address for segment in source.segments]
    assert [segment.address for segment in fork.segments[:2]] == addresses[:2]
    assert fork.segments[2].address != addresses[2]
    fork.truncate(300)
    assert fork.segments[0].address == addresses[0]
    assert fork.segments[1].address != addresses[1]
    assert [segment.address for segment in source.segments] == addresses
    fork.truncate(256)  # nothing will be written to the first
    assert [segment.address for segment in fork.segments] == addresses[:1]


def test_memory_goes_with_its_last_user(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    original = SharedSegment.close

    def close(segment: SharedSegment) -> None:
        original(segment)
        if segment.n_users == 0:
            closed.append(segment.address)

    monkeypatch.setattr(SharedSegment, "close", close)
    source = store_of(random_ids(512))
    addresses = [segment.address for segment in source.segments]
    fork = source.fork(512)
    source.close()
    source.close()
    assert closed == []
    assert holds(fork, random_ids(512))
    fork.truncate(256)
    assert closed == addresses[1:]
    fork.abandon()
    assert {*closed} == {*addresses}


def test_many_forks_at_random() -> None:
    choose = random.Random(3)
    stores: list[tuple[MemoryStore, list[int]]] = [(MemoryStore(LAYOUT), [])]
    for step in range(120):
        store, tokens = choose.choice(stores)
        match choose.randrange(4):
            case 0:
                n = choose.randint(0, len(tokens))
                stores.append((store.fork(n), tokens[:n]))
            case 1:
                n = choose.randint(0, len(tokens))
                store.truncate(n)
                del tokens[n:]
            case 2:
                more = random_ids(choose.choice([1, 100, 256, 300]), step)
                extend(store, more)
                tokens += more
            case 3:
                if len(stores) > 1:
                    stores.remove((store, tokens))
                    store.close()
        if step % 10 == 9:
            assert all(holds(store, tokens) for store, tokens in stores)


def test_no_memory_for_a_copy_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = random_ids(512)
    source = store_of(tokens)
    fork = source.fork(512)

    def refuse(*_: object, **__: object) -> None:
        raise OptionError("no memory")

    monkeypatch.setattr("edgeqwen.cache.store.Region", refuse)
    sequence = Sequence(LAYOUT, fork)
    sequence.reserve(512)
    with pytest.raises(OptionError):
        sequence.truncate(300)
    assert holds(fork, tokens)
    assert holds(source, tokens)


def test_a_copy_of_a_session_is_its_own(tmp_path: object) -> None:
    session = create(tmp_path / "session", random_ids(300))  # type: ignore[operator]
    sequence = Sequence(LAYOUT, session)
    fork = sequence.fork(280)
    sequence.truncate(100)
    extend(session, random_ids(300, 1))
    assert isinstance(fork.store, MemoryStore)
    assert holds(fork.store, random_ids(300)[:280])
    sequence.close()


def test_a_table_of_addresses_is_true_after_anything() -> None:
    sequence = Sequence(LAYOUT)

    def table(n: int) -> list[int]:
        sequence.reserve(n)
        return sequence._table.tolist()

    def addresses() -> list[int]:
        return [segment.address for segment in sequence.store.segments]

    assert table(600) == addresses()
    sequence.extend(random_ids(600))
    fork = sequence.fork()
    sequence.truncate(100)  # of a shared segment: it moves
    assert table(200) == addresses()
    assert table(300) == addresses()
    assert len(addresses()) == 2
    assert fork.n_tokens == 600


def test_senseless_numbers_and_closed_sequences_are_refused() -> None:
    sequence = Sequence(LAYOUT)
    sequence.reserve(3)
    sequence.extend([1, 2, 3])
    for n in (-1, 4):
        with pytest.raises(OptionError, match=f"can't truncate to {n} tokens: the sequence hold"):
            sequence.truncate(n)
        with pytest.raises(OptionError, match=f"can't copy {n} tokens: the sequence holds 3"):
            sequence.fork(n)
    sequence.close()
    sequence.close()
    sequence.abandon()
    for use in (lambda: sequence.reserve(4), sequence.fork, sequence.seal):
        with pytest.raises(ClosedError, match="this sequence was closed"):
            use()
    with pytest.raises(ClosedError):
        sequence.truncate(0)
    with pytest.raises(ClosedError):
        sequence.store  # noqa: B018


def test_a_sequence_whose_store_fails_has_no_table_of_what_was_given_back() -> None:
    """A kernel would write to where nothing is any more."""
    sequence = Sequence(LAYOUT)
    sequence.reserve(700)
    sequence.extend(random_ids(700))
    fork = sequence.fork()  # shares the first segments, which moving tokens must copy
    store = sequence.store
    assert isinstance(store, MemoryStore)
    made, n_made = store._copy_of, 0

    def fail_at_the_second(segment: Segment) -> SharedSegment:
        nonlocal n_made
        n_made += 1
        if n_made == 2:
            raise OptionError("no memory")
        return made(segment)

    store._copy_of = fail_at_the_second  # type: ignore[method-assign]
    with pytest.raises(OptionError):
        sequence.move_to(10, 100)
    table = ctypes.string_at(sequence.reserve(700), 8 * 3)
    assert np.frombuffer(table, np.int64).tolist() == [s.address for s in store.segments]
    fork.close()
