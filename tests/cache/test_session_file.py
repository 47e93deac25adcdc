"""Session files without an engine: what they keep, and how they grow."""

import os
import random
import stat
from pathlib import Path

import pytest

from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import UNIT_BYTES
from edgeqwen.cache.session_lock import lock_path
from edgeqwen.cache.verify import verify
from edgeqwen.errors import SessionError
from tests.cache.filled import IDENTITY, create, extend, holds, opened, random_ids


def test_a_session_is_what_it_was(path: Path) -> None:
    tokens = random_ids(600)
    create(path, tokens, "Grüße".encode()).close()
    with opened(path) as session:
        assert holds(session, tokens)
        assert session.transcript.decode() == "Grüße"
        extend(session, tokens[:10])
    with opened(path) as session:
        assert holds(session, tokens + tokens[:10])
    found = verify(path)
    assert (found.summary.n_tokens, found.n_covered, found.problems) == (610, 610, ())


def test_an_empty_session(path: Path) -> None:
    create(path).close()
    with opened(path) as session:
        assert holds(session, [])
        assert session.transcript == b""
        assert session.edits == 0


def test_only_the_user_may_read_it(path: Path) -> None:
    path.with_name(".session.new").write_bytes(b"of a process that was killed")
    create(path, [1]).close()
    if os.name != "nt":
        for file in (path, lock_path(path)):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == [".session.lock", "session"]


def test_one_that_is_there_is_replaced_only_if_that_is_wished(path: Path) -> None:
    create(path, [1, 2]).close()
    with pytest.raises(SessionError, match="is there already; open it, or name another file"):
        SessionFile.create(path, IDENTITY)
    with opened(path) as session:
        assert session.tokens == [1, 2]
    SessionFile.create(path, IDENTITY, transcript=b"kept", replace=True).close()
    with opened(path) as session:
        assert session.tokens == []
        assert session.transcript == b"kept"


@pytest.mark.parametrize("n", [1, 255, 256, 257, 511, 512, 513, 1000])
def test_tokens_across_the_borders_of_segments(path: Path, n: int) -> None:
    tokens = random_ids(1000)
    session = create(path, tokens[:n])
    extend(session, tokens[n:])
    session.close()
    with opened(path) as session:
        assert holds(session, tokens)
        session.truncate(n)
        assert len(session.segments) == -(-n // 256)
    with opened(path) as session:
        assert holds(session, tokens[:n])
        assert session.edits == (n < 1000)
    assert verify(path).problems == ()


def test_growing_moves_nothing(path: Path) -> None:
    session = create(path, random_ids(256))
    addresses = [session.segments[0].address]
    for i in range(1, 12):
        extend(session, random_ids(256, i))
        session.set_transcript(bytes(i * 30_000))
        addresses.append(session.segments[-1].address)
    assert [segment.address for segment in session.segments] == addresses
    assert len({*addresses}) == 12
    session.close()


def test_places_are_used_again(path: Path) -> None:
    session = create(path, random_ids(1000))
    session.close()
    size = path.stat().st_size
    for i in range(5):
        with opened(path) as session:
            session.truncate(200 + i)
            extend(session, random_ids(800 - i, i))
    assert path.stat().st_size == size
    for i in range(9):
        with opened(path) as session:
            session.set_transcript(b"%d" % i * 1000)
    assert path.stat().st_size <= size + 3 * UNIT_BYTES


def test_a_segment_in_a_place_that_was_used_has_no_seal(path: Path) -> None:
    session = create(path, random_ids(600))
    session.seal()
    session.truncate(256)
    extend(session, random_ids(3))
    assert session.segments[1].seal == (0, 0)
    session.abandon()
    assert verify(path).problems == ()


def test_random_lives(path: Path) -> None:
    """Like a list of tokens and a text, through anything."""
    for seed in range(6):
        choose = random.Random(seed)
        tokens: list[int] = []
        text = b""
        session = create(path)
        for _ in range(30):
            match choose.randrange(6):
                case 0 | 1:
                    more = random_ids(choose.choice([1, 2, 255, 256, 300]), choose.randrange(99))
                    extend(session, more)
                    tokens += more
                case 2:
                    n = choose.randint(0, len(tokens))
                    session.truncate(n)
                    del tokens[n:]
                case 3:
                    text = choose.randbytes(choose.choice([0, 1, 70_000]))
                    session.set_transcript(text)
                case 4:
                    session.seal()
                    found = verify(path)
                    assert (found.problems, found.n_covered) == ((), len(tokens))
                case 5:
                    (session.close if choose.random() < 0.5 else session.abandon)()
                    assert verify(path).problems == ()
                    session = SessionFile.open(path, IDENTITY)
            assert session.tokens == tokens
            assert session.transcript == text
        assert holds(session, tokens)
        session.close()
        path.unlink()
