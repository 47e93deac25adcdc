"""What is in a session, and whether it is what was written."""

import os
from dataclasses import dataclass
from pathlib import Path

from edgeqwen.cache.layout import n_segments
from edgeqwen.cache.session_copies import ATTEMPTS, reading, restless
from edgeqwen.cache.session_format import Identity
from edgeqwen.cache.session_state import (
    SessionState,
    is_of_this_boot,
    read_commits,
    read_transcript,
)
from edgeqwen.errors import SessionError
from edgeqwen.kernels.attention_types import SEGMENT


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session at a glance: ``n_bytes`` on the disk, ``time`` of the last change, since 1970."""

    path: Path
    identity: Identity
    n_tokens: int
    n_bytes: int
    time: float


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of ``verify``.

    ``n_covered``: tokens whose keys and values have a checksum that was compared; those of an
    answer that is under way, or was broken off, have none yet.
    """

    summary: SessionSummary
    n_covered: int
    problems: tuple[str, ...]


def summarize(path: Path) -> SessionSummary:
    """Reads what a session is about. Raises SessionError where that can't be told."""
    with reading(path) as (handle, identity, state):
        return _summary(path, handle, identity, state)


def verify(path: Path) -> Verification:
    """Compares all checksums of a session with what it holds.

    Raises SessionError for a file whose records or tokens are damaged: then nothing else can be
    told.
    """
    for _ in range(ATTEMPTS):
        found, is_still_the_same = _verify(path)
        if is_still_the_same or not found.problems:
            return found
    raise restless(path)


def _verify(path: Path) -> tuple[Verification, bool]:
    """Returns what is found, and whether nobody has written to the session meanwhile."""
    with reading(path) as (handle, identity, state):
        problems = []
        n_covered, n_tokens = 0, len(state.tokens)
        for i in range(n_segments(n_tokens)):
            covered, expected = state.segments[i].seal
            n_here = min(SEGMENT, n_tokens - i * SEGMENT)
            n_stored = min(n_here, max(0, state.commit.n_stored - i * SEGMENT))
            lost = n_stored < n_here or not is_of_this_boot(state.commit)
            if lost and n_here < covered <= SEGMENT:
                continue  # of tokens that were taken away, or lost with the system
            if not n_stored <= covered <= n_here:
                problems.append(
                    f"the seal of tokens {i * SEGMENT} to {i * SEGMENT + n_here - 1} covers "
                    f"{covered} of them, expected {n_stored} or more"
                )
                continue
            if covered == 0:
                continue
            where = f"tokens {i * SEGMENT} to {i * SEGMENT + covered - 1}"
            kv = state.segments[i].view(0, identity.layout.segment_bytes)
            found = identity.layout.checksum(kv, covered)
            if found != expected:
                problems.append(
                    f"the keys and values of {where} have the checksum {found:08x}, expected "
                    f"{expected:08x}"
                )
            n_covered += covered
        try:
            read_transcript(handle, state.commit, path)
        except SessionError as error:
            problems.append(str(error).removeprefix(f"{path}: is damaged: ").partition(";")[0])
        summary = _summary(path, handle, identity, state)
        same = [commit.number for commit in read_commits(handle)[:1]] == [state.commit.number]
        return Verification(summary, n_covered, tuple(problems)), same


def _summary(path: Path, handle: int, identity: Identity, state: SessionState) -> SessionSummary:
    status = os.fstat(handle)
    n_bytes = 512 * status.st_blocks if hasattr(status, "st_blocks") else status.st_size
    return SessionSummary(path, identity, len(state.tokens), n_bytes, state.commit.time)
