"""Damage that opening doesn't look for is found, and its place is named."""

from pathlib import Path
from typing import Any

import pytest

import edgeqwen.cache.verify as verifying
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import KV_OFFSET, SEAL_OFFSET
from edgeqwen.cache.verify import summarize, verify
from tests.cache.filled import (
    IDENTITY,
    LAYOUT,
    create,
    extend,
    first_segment,
    flip,
    random_ids,
    restart,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A session of 256 + 44 tokens, sealed."""
    path = tmp_path / "session"
    create(path, random_ids(300), b"said").close()
    return path


def segment_at(path: Path, index: int) -> int:
    return first_segment(path) + index * 3 * 65536


def test_a_sound_session(path: Path) -> None:
    found = verify(path)
    assert (found.n_covered, found.problems) == (300, ())
    summary = summarize(path)
    assert found.summary == summary
    assert summary.n_tokens == 300
    assert summary.identity == IDENTITY
    assert 1.7e9 < summary.time < 5e9
    assert 300_000 < summary.n_bytes < 2_000_000


@pytest.mark.parametrize("offset", [0, 1, 63, 4096, LAYOUT.segment_bytes - 1])
def test_a_flipped_bit_of_keys_and_values_is_found(path: Path, offset: int) -> None:
    flip(path, segment_at(path, 0) + KV_OFFSET + offset, offset % 8)
    (problem,) = verify(path).problems
    assert problem.startswith("the keys and values of tokens 0 to 255 have the checksum ")


def test_the_place_is_named(path: Path) -> None:
    flip(path, segment_at(path, 1) + KV_OFFSET)
    (problem,) = verify(path).problems
    assert problem.startswith("the keys and values of tokens 256 to 299 have the checksum ")
    flip(path, segment_at(path, 0) + KV_OFFSET)
    assert len(verify(path).problems) == 2


def test_bits_of_no_token_are_nobodys(path: Path) -> None:
    # K of the second segment's position 255: the last element of the last line of its last tile.
    flip(path, segment_at(path, 1) + KV_OFFSET + 256 * 64 * 2 - 1)
    assert verify(path).problems == ()


@pytest.mark.parametrize("index", [0, 1])
def test_every_flipped_bit_of_a_seal_is_found(path: Path, index: int) -> None:
    for bit in range(64):
        offset = segment_at(path, index) + SEAL_OFFSET + bit // 8
        flip(path, offset, bit % 8)
        (problem,) = verify(path).problems
        assert "the seal of tokens" in problem or "have the checksum" in problem
        flip(path, offset, bit % 8)
    assert verify(path).problems == ()


def test_what_has_no_seal_yet_is_no_problem(path: Path) -> None:
    session = SessionFile.open(path, IDENTITY)
    extend(session, random_ids(500, 1))
    session.abandon()
    found = verify(path)
    assert (found.problems, found.summary.n_tokens, found.n_covered) == ((), 800, 300)


@pytest.mark.parametrize("kept", [0, 100, 256, 280, 299])
def test_what_was_cut_into_is_no_problem(path: Path, kept: int) -> None:
    session = SessionFile.open(path, IDENTITY)
    session.truncate(kept)
    assert verify(path).problems == ()
    extend(session, random_ids(9, 1))
    assert verify(path).problems == ()
    extend(session, random_ids(300, 1))
    session.abandon()
    assert verify(path).problems == ()


def test_a_seal_whose_record_was_lost_is_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power failed while a session was sealed: its checksums were on the disk before."""
    restart(monkeypatch, bytes([1] * 16))
    session = SessionFile.open(path, IDENTITY)
    session.seal()
    extend(session, random_ids(100, 1))
    kv = session.segments[1].view(0, LAYOUT.segment_bytes)
    session.segments[1].seal = 144, LAYOUT.checksum(kv, 144)
    del kv
    session.abandon()
    restart(monkeypatch, bytes([2] * 16))
    assert verify(path).problems == ()
    session = SessionFile.open(path, IDENTITY)
    assert len(session.tokens) == 300
    for _ in range(2):  # while it is open, and after it was killed
        found = verify(path)
        assert (found.problems, found.n_covered) == ((), 300)
        session.abandon()


def test_a_seal_of_more_than_there_are_is_damage_after_a_restart_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(path, segment_at(path, 0) + SEAL_OFFSET + 3, 7)
    for boot in (1, 2):
        assert len(verify(path).problems) == 1
        restart(monkeypatch, bytes([boot] * 16))


def test_an_answer_that_ends_meanwhile_is_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SessionFile.open(path, IDENTITY)
    original, n_calls = verifying.read_transcript, 0

    def read_transcript(*arguments: Any) -> bytes:
        nonlocal n_calls
        n_calls += 1
        return original(*arguments)

    def n_segments(n: int) -> int:
        if not session.tokens[300:]:  # after the records were read, and before the seals are
            extend(session, random_ids(50, 1))
            session.seal()
        return -(-n // 256)

    monkeypatch.setattr(verifying, "read_transcript", read_transcript)
    monkeypatch.setattr(verifying, "n_segments", n_segments)
    found = verify(path)
    assert (found.problems, found.n_covered, n_calls) == ((), 350, 2)
    session.close()
