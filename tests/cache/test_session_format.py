"""The bytes of sessions: what was written is read, and what was damaged is noticed."""

import dataclasses
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeqwen.cache.layout import CacheLayout
from edgeqwen.cache.session_format import (
    FIRST_UNIT,
    IDENTITY_BYTES,
    MAX_SEGMENTS,
    MAX_TRANSCRIPT_BYTES,
    UNIT_BYTES,
    Commit,
    Extent,
    Identity,
    free_extent,
    units,
)
from edgeqwen.errors import SessionError
from tests.cache.filled import IDENTITY

layouts = st.builds(
    CacheLayout,
    st.integers(1, 80),
    st.integers(1, 16),
    st.sampled_from([32, 64, 128]),
    st.sampled_from(["f16", "f32"]),
)
digests = st.binary(min_size=32, max_size=32)
identities = st.builds(
    Identity,
    layouts,
    digests,
    digests,
    st.integers(1, 2**32 - 1),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=60),
)
words, longs = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
commits = st.builds(
    Commit,
    **{
        field.name: words
        for field in dataclasses.fields(Commit)
        if field.name not in ("number", "n_tokens", "edits", "n_stored", "boot", "time", "segments")
    },
    number=longs,
    n_tokens=longs,
    edits=longs,
    n_stored=longs,
    boot=st.binary(min_size=16, max_size=16),
    time=st.floats(allow_nan=False),
    segments=st.lists(words, max_size=30).map(tuple),
)
COMMIT = Commit(
    number=7, n_tokens=300, n_stored=300, transcript_unit=3, transcript_bytes=5, segments=(4, 10)
)


@given(identities)
def test_an_identity_is_read_as_it_was_written(identity: Identity) -> None:
    data = identity.encode()
    assert len(data) == IDENTITY_BYTES
    assert Identity.decode(data + b"rest", "x") == identity


def test_a_long_name_is_cut_at_a_character() -> None:
    named = dataclasses.replace(IDENTITY, model="ä" * 200)
    assert Identity.decode(named.encode(), "x").model == "ä" * 128


def test_every_flipped_bit_of_an_identity_is_noticed() -> None:
    data = IDENTITY.encode()
    for bit in range(8 * len(data)):
        with pytest.raises(SessionError):
            Identity.decode(flipped(data, bit), "x")


def test_what_is_no_identity_is_refused_with_its_reason() -> None:
    data = IDENTITY.encode()
    cases = {
        b"": "is no session file",
        b"GGUF" + bytes(4000): "is no session file",
        data[:-1]: "is no session file",
        data[:16] + struct.pack("<I", 2) + data[20:]: "of format 2, .* reads format 1; install",
        data[:16] + struct.pack("<I", 0) + data[20:]: "of format 0, .* begin a new session",
        flipped(data, 400): "the checksum of its first page is",
        identity_with(n_layers=0): "a shape that no model has: 0 layers",
        identity_with(head_dim=5000): "a shape that no model has",
        identity_with(cache_type=b"q9_9"): "cache type is 'q9_9', which this version doesn't know",
        identity_with(cache_type=b"\xff"): "can't be read",
        identity_with(segment=128): "its segments have 128 positions",
        identity_with(n_bytes=1): "and 1 bytes, expected 256 and 131072",
    }
    for wrong, message in cases.items():
        with pytest.raises(SessionError, match=f"^a/b: .*{message}"):
            Identity.decode(wrong, "a/b")


def test_why_a_session_is_of_another_model() -> None:
    changes = {
        "other weights than the model's": {"weights": bytes(32)},
        r"other weights \(small\) than the model's \(filled\)": {
            "weights": bytes(32),
            "model": "small",
        },
        "other weights than": {"vocab_size": 5},
        "other RoPE settings": {"settings": bytes(range(32))},
        "cache type is f32, the model's is f16": {"layout": CacheLayout(2, 1, 64, "f32")},
        "other shapes": {"layout": CacheLayout(2, 2, 64, "f16")},
    }
    for reason, change in changes.items():
        other = dataclasses.replace(IDENTITY, **change)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(IDENTITY.difference(other))
    assert IDENTITY.difference(dataclasses.replace(IDENTITY, model="renamed")) is None


@given(commits)
def test_a_record_is_read_as_it_was_written(commit: Commit) -> None:
    assert Commit.decode(commit.encode().ljust(UNIT_BYTES, b"\xaa")) == commit
    assert Commit.decode(commit.encode()) == commit


def test_every_flipped_bit_of_a_record_is_noticed() -> None:
    data = COMMIT.encode()
    for bit in range(8 * len(data)):
        assert Commit.decode(flipped(data, bit).ljust(UNIT_BYTES, b"\0")) is None


def test_a_record_cut_anywhere_is_none() -> None:
    data = COMMIT.encode()
    for n in range(len(data)):
        assert Commit.decode(data[:n]) is None
        assert Commit.decode(data[:n].ljust(UNIT_BYTES, b"\xaa")) is None
    assert Commit.decode(bytes(UNIT_BYTES)) is None


def test_a_record_with_another_number_of_segments_than_it_has_is_none() -> None:
    data = bytearray(COMMIT.encode())
    data[-12:-8] = struct.pack("<I", 5)
    assert data[-12:] != COMMIT.encode()[-12:]
    assert Commit.decode(bytes(checked(data))) is None


def test_the_largest_record_fills_a_slot() -> None:
    most = dataclasses.replace(COMMIT, segments=tuple(range(MAX_SEGMENTS)))
    assert UNIT_BYTES - 4 < len(most.encode()) <= UNIT_BYTES
    assert Commit.decode(most.encode().ljust(UNIT_BYTES, b"\0")) == most


def test_what_is_stored_and_what_is_left() -> None:
    stored = COMMIT.all_stored()
    later = dataclasses.replace(
        stored, n_tokens=600, tokens_crc=9, transcript_unit=20, segments=(4, 10, 16)
    )
    assert later.only_stored() == stored
    assert later.stored_transcript == stored.transcript == Extent(3, 1)
    cut = dataclasses.replace(later, n_stored=256)
    assert cut.only_stored().segments == (4,)


def test_no_problem() -> None:
    assert COMMIT.problem(6, 16) is None
    assert Commit().problem(6, 3) is None
    same = dataclasses.replace(COMMIT, stored_unit=3, stored_bytes=5)
    assert same.problem(6, 16) is None
    apart = dataclasses.replace(COMMIT, stored_unit=16, stored_bytes=5)
    assert apart.problem(6, 17) is None


@pytest.mark.parametrize(
    ("change", "n_units", "message"),
    [
        ({"segments": (4, 9)}, 20, "in the same place"),
        ({"segments": (4, 4)}, 20, "in the same place"),
        ({"segments": (2, 10)}, 20, "in the same place"),
        ({"segments": (4, 0)}, 20, "in the same place"),
        ({"transcript_unit": 12}, 20, "in the same place"),
        ({"transcript_bytes": UNIT_BYTES + 1}, 20, "in the same place"),
        ({"stored_unit": 12, "stored_bytes": 1}, 20, "in the same place"),
        ({}, 15, f"has {15 * UNIT_BYTES} bytes, expected {16 * UNIT_BYTES} or more"),
        ({"segments": (4, 2**32 - 1)}, 20, "cut short"),
        ({"transcript_unit": 2**32 - 1}, 20, "cut short"),
        ({"stored_unit": 16, "stored_bytes": 1}, 16, "cut short"),
        ({"n_tokens": 513, "n_stored": 0}, 20, "513 tokens don't fit into 2 segments"),
        ({"n_tokens": 2**64 - 1, "n_stored": 0}, 20, "don't fit"),
        ({"n_stored": 301}, 20, "stored 301 of 300 tokens"),
        ({"transcript_bytes": MAX_TRANSCRIPT_BYTES + 1}, 2**20, "can't take"),
        ({"stored_unit": 16, "stored_bytes": 2**32 - 1}, 2**20, "can't take"),
        ({"number": 2**64 - 1}, 20, "counters"),
        ({"edits": 2**64 - 1}, 20, "counters"),
        ({"time": float("nan")}, 20, "counters"),
        ({"time": 1e300}, 20, "counters"),
    ],
)
def test_a_record_that_can_not_be_of_the_file(
    change: dict[str, object], n_units: int, message: str
) -> None:
    problem = dataclasses.replace(COMMIT, **change).problem(6, n_units)  # type: ignore[arg-type]
    assert problem is not None
    assert message in problem


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 99)), max_size=40))
def test_parts_never_overlap_and_places_are_used_again(steps: list[tuple[bool, int, int]]) -> None:
    used: list[Extent] = []
    for adds, n_units, which in steps:
        if adds or not used:
            found = free_extent(used, n_units)
            assert found.n_units == n_units
            assert found.first >= FIRST_UNIT
            assert all(found.end <= e.first or e.end <= found.first for e in used)
            # There is none before it.
            taken = {unit for e in used for unit in range(e.first, e.end)}
            for first in range(FIRST_UNIT, found.first):
                assert taken & {*range(first, first + n_units)}
            used.append(found)
        else:
            used.pop(which % len(used))


def test_units() -> None:
    assert [units(n) for n in (0, 1, UNIT_BYTES, UNIT_BYTES + 1)] == [0, 1, 1, 2]


def flipped(data: bytes, bit: int) -> bytes:
    """Returns data with one bit flipped."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def checked(record: bytearray) -> bytearray:
    """Returns a record with the checksum that it ought to have."""
    record[:4] = struct.pack("<I", zlib.crc32(record[4:]))
    return record


def identity_with(
    n_layers: int = 2,
    head_dim: int = 64,
    segment: int = 256,
    n_bytes: int = 131072,
    cache_type: bytes = b"f16",
) -> bytes:
    """Returns an identity whose checksum is right, whatever it says."""
    body = struct.pack(
        "<IIIIQ16s32s32sI256s",
        n_layers,
        1,
        head_dim,
        segment,
        n_bytes,
        cache_type,
        bytes(32),
        bytes(32),
        1000,
        b"x",
    )
    return b"edgeqwen-session" + struct.pack("<II", 1, zlib.crc32(body)) + body
