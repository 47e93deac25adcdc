"""The bytes of a session file; docs/sessions.md describes them for other programs.

A file is cut into units of 64 KB. The first holds the *identity*: what model the keys and values
are of. The next two are the *slots*: each holds a commit record, which says which tokens there are
and where. Records are numbered, and the next is always written into the slot that the newest isn't
in: whenever a process is killed, one whole record is there. Behind them lie *extents* of several
units: segments (256 token ids, a seal, 256 positions of keys and values), and the transcript.

All numbers are little-endian.
"""

import dataclasses
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeqwen.cache.layout import CacheLayout, n_segments
from edgeqwen.cache.tokens import ALL_IN_ORDER
from edgeqwen.errors import SessionError
from edgeqwen.kernels.attention_types import SEGMENT

UNIT_BYTES = 1 << 16
"""Extents begin at multiples of this: no system has larger pages."""
SLOTS = (1, 2)
FIRST_UNIT = 3
KV_OFFSET = 4096
"""Bytes from the start of a segment's extent to its keys and values."""
SEAL_OFFSET = 4 * SEGMENT

MAGIC = b"edgeqwen-session"
VERSION = 1
_HEAD = struct.Struct("<16sII")  # magic, version, CRC-32 of what follows
_IDENTITY = struct.Struct("<IIIIQ16s32s32sI256s")
IDENTITY_BYTES = _HEAD.size + _IDENTITY.size

_RECORD_HEAD = struct.Struct("<II")  # CRC-32 of what follows, bytes of the record
_RECORD = struct.Struct("<QQI16sQIIIQIIIIdII")
# Where a record's number, its tokens and their CRC-32 are, in units of their own size.
NUMBER_PLACE, TOKENS_PLACE, TOKENS_CRC_PLACE = 1, 2, 6
MAX_SEGMENTS = (UNIT_BYTES - _RECORD_HEAD.size - _RECORD.size) // 4
MAX_TRANSCRIPT_BYTES = 1 << 28
_MOST_COUNTED = 1 << 62
_YEAR_10000 = 253402300800
"""In seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a session's keys and values were computed by.

    ``weights``: SHA-256 digest of the model's tensors; ``settings``: of the numbers that are no
    tensors, those of RoPE and of the norms. Both have 32 bytes. ``model`` is its name, for
    messages.
    """

    layout: CacheLayout
    weights: bytes
    settings: bytes
    vocab_size: int
    model: str

    def encode(self) -> bytes:
        """Returns the identity as the file begins with it."""
        layout = self.layout
        body = _IDENTITY.pack(
            layout.n_layers,
            layout.n_kv_heads,
            layout.head_dim,
            SEGMENT,
            layout.segment_bytes,
            layout.cache_type.encode(),
            self.weights,
            self.settings,
            self.vocab_size,
            _cut(self.model, 256),
        )
        return _HEAD.pack(MAGIC, VERSION, zlib.crc32(body)) + body

    @classmethod
    def decode(cls, data: bytes, source: str) -> "Identity":
        """Reads an identity. Raises SessionError for anything that isn't one of this version."""
        if len(data) < IDENTITY_BYTES or data[: len(MAGIC)] != MAGIC:
            raise SessionError(f"{source}: is no session file; name another file")
        _, version, checksum = _HEAD.unpack_from(data)
        if version != VERSION:
            raise SessionError(
                f"{source}: is a session file of format {version}, and this version of edgeqwen "
                f"reads format {VERSION}; "
                + ("install a newer one" if version > VERSION else "begin a new session")
            )
        body = data[_HEAD.size : IDENTITY_BYTES]
        if zlib.crc32(body) != checksum:
            raise SessionError(
                f"{source}: is damaged: the checksum of its first page is "
                f"{zlib.crc32(body):08x}, expected {checksum:08x}; restore it from a copy, or "
                "begin a new session"
            )
        n_layers, n_heads, head_dim, segment, n_bytes, kind, *digests, vocab, name = (
            _IDENTITY.unpack(body)
        )
        weights, settings = digests
        try:
            layout = CacheLayout.checked(n_layers, n_heads, head_dim, kind.rstrip(b"\0").decode())
        except ValueError as error:
            raise SessionError(f"{source}: can't be read: {error}") from error
        if (segment, n_bytes) != (SEGMENT, layout.segment_bytes):
            raise SessionError(
                f"{source}: its segments have {segment} positions and {n_bytes} bytes, expected "
                f"{SEGMENT} and {layout.segment_bytes}; begin a new session"
            )
        model = name.rstrip(b"\0").decode(errors="replace")
        return cls(layout, weights, settings, vocab, model)

    def difference(self, other: "Identity") -> str | None:
        """Returns why keys and values of ``other`` can't be used with this model, and what to do.

        None if they can.
        """
        if self.weights != other.weights or self.vocab_size != other.vocab_size:
            named = f" ({other.model})" if other.model != self.model else ""
            return f"it belongs to other weights{named} than the model's ({self.model}); load those"
        if self.layout.cache_type != other.layout.cache_type:
            return (
                f"its cache type is {other.layout.cache_type}, the model's is "
                f"{self.layout.cache_type}; load the model with that of the session (cache_type, "
                f"--kv {other.layout.cache_type})"
            )
        if self.layout != other.layout:
            return "its keys and values have other shapes than the model's; load its own"
        if self.settings != other.settings:
            return (
                "it was computed with other RoPE settings (or another epsilon of the norms); load "
                "the model with its own (rope_scaling, --yarn)"
            )
        return None


@dataclass(frozen=True, slots=True)
class Extent:
    """Some units of the file."""

    first: int
    n_units: int

    @property
    def offset(self) -> int:
        """Where it begins, in bytes."""
        return self.first * UNIT_BYTES

    @property
    def end(self) -> int:
        """The first unit behind it."""
        return self.first + self.n_units


@dataclass(slots=True)
class Commit:
    """One commit record: the state of the session after a step.

    ``number`` grows with every record; ``n_tokens``: the tokens there are; ``tokens_crc``: the
    CRC-32 of their ids, int32. ``edits`` counts how often tokens were taken away. ``segments``: the
    first unit of each segment's extent. ``time``: seconds since 1970. ``first_moved``: see
    ``edgeqwen.cache.store.Store``.

    What is named ``stored`` was written to the disk before the record: so many of the first tokens
    with their keys and values, and a transcript, perhaps an older one. The rest is in the system's
    memory as long as it runs, and ``boot`` tells whether it has been restarted.
    """

    number: int = 0
    n_tokens: int = 0
    tokens_crc: int = 0
    boot: bytes = bytes(16)
    edits: int = 0
    transcript_unit: int = 0
    transcript_bytes: int = 0
    transcript_crc: int = 0
    n_stored: int = 0
    stored_crc: int = 0
    stored_unit: int = 0
    stored_bytes: int = 0
    stored_transcript_crc: int = 0
    time: float = 0.0
    first_moved: int = ALL_IN_ORDER
    segments: tuple[int, ...] = field(default=())

    def encode(self) -> bytes:
        """Returns the record as it lies in a slot."""
        body = _RECORD.pack(
            self.number,
            self.n_tokens,
            self.tokens_crc,
            self.boot,
            self.edits,
            self.transcript_unit,
            self.transcript_bytes,
            self.transcript_crc,
            self.n_stored,
            self.stored_crc,
            self.stored_unit,
            self.stored_bytes,
            self.stored_transcript_crc,
            self.time,
            self.first_moved,
            len(self.segments),
        ) + struct.pack(f"<{len(self.segments)}I", *self.segments)
        size = struct.pack("<I", _RECORD_HEAD.size + len(body))
        return struct.pack("<I", zlib.crc32(body, zlib.crc32(size))) + size + body

    @classmethod
    def decode(cls, slot: bytes) -> "Commit | None":
        """Reads a slot; None where it holds no whole record."""
        if len(slot) < _RECORD_HEAD.size:
            return None
        checksum, n_bytes = _RECORD_HEAD.unpack_from(slot)
        if not _RECORD_HEAD.size + _RECORD.size <= n_bytes <= len(slot):
            return None
        if zlib.crc32(slot[4:n_bytes]) != checksum:
            return None
        fields: list[Any] = [*_RECORD.unpack_from(slot, _RECORD_HEAD.size)]
        n = fields.pop()
        if n_bytes != _RECORD_HEAD.size + _RECORD.size + 4 * n:
            return None
        fields.append(struct.unpack_from(f"<{n}I", slot, _RECORD_HEAD.size + _RECORD.size))
        commit = cls(*fields)
        return None if math.isnan(commit.time) else commit

    @property
    def transcript(self) -> Extent | None:
        """Where the transcript is, if there is one."""
        return _extent(self.transcript_unit, self.transcript_bytes)

    @property
    def stored_transcript(self) -> Extent | None:
        """Where the transcript is that was written to the disk, if one was."""
        return _extent(self.stored_unit, self.stored_bytes)

    def all_stored(self) -> "Commit":
        """Returns the record of a session of which everything has been written to the disk."""
        return dataclasses.replace(
            self,
            n_stored=self.n_tokens,
            stored_crc=self.tokens_crc,
            stored_unit=self.transcript_unit,
            stored_bytes=self.transcript_bytes,
            stored_transcript_crc=self.transcript_crc,
        )

    def only_stored(self) -> "Commit":
        """Returns the record of what is left when all else went with the system."""
        return dataclasses.replace(
            self,
            n_tokens=self.n_stored,
            tokens_crc=self.stored_crc,
            transcript_unit=self.stored_unit,
            transcript_bytes=self.stored_bytes,
            transcript_crc=self.stored_transcript_crc,
            segments=self.segments[: n_segments(self.n_stored)],
        )

    def problem(self, segment_units: int, n_units: int) -> str | None:
        """Returns why the record can't be of a file of ``n_units`` units, if it can't."""
        if max(self.number, self.edits) > _MOST_COUNTED or not 0 <= self.time < _YEAR_10000:
            return "its counters are out of range"
        if max(self.transcript_bytes, self.stored_bytes) > MAX_TRANSCRIPT_BYTES:
            return f"its messages can't take {max(self.transcript_bytes, self.stored_bytes)} bytes"
        if self.n_stored > self.n_tokens:
            return f"it can't have stored {self.n_stored} of {self.n_tokens} tokens"
        extents = [Extent(first, segment_units) for first in self.segments]
        # A set: both transcripts may be the same.
        extents += [e for e in {self.transcript, self.stored_transcript} if e is not None]
        extents.sort(key=lambda extent: extent.first)
        end = FIRST_UNIT
        for extent in extents:
            if extent.first < end:
                return "two of its parts lie in the same place"
            end = extent.end
        if end > n_units:
            return (
                f"it is cut short: it has {n_units * UNIT_BYTES} bytes, expected "
                f"{end * UNIT_BYTES} or more"
            )
        if n_segments(self.n_tokens) > len(self.segments):
            return f"{self.n_tokens} tokens don't fit into {len(self.segments)} segments"
        return None


def _extent(unit: int, n_bytes: int) -> Extent | None:
    return Extent(unit, units(n_bytes)) if n_bytes else None


def units(n_bytes: int) -> int:
    """Returns how many units hold so many bytes."""
    return -(-n_bytes // UNIT_BYTES)


def free_extent(used: Sequence[Extent], n_units: int) -> Extent:
    """Returns the first place for ``n_units`` units that isn't used, perhaps at the file's end."""
    end = FIRST_UNIT
    for extent in sorted(used, key=lambda extent: extent.first):
        if extent.first - end >= n_units:
            break
        end = max(end, extent.end)
    return Extent(end, n_units)


def _cut(text: str, n_bytes: int) -> bytes:
    """Returns the text in UTF-8, cut to so many bytes at the end of a character."""
    return text.encode()[:n_bytes].decode(errors="ignore").encode()
