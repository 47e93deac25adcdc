"""Writing a whole session at once, for a file that never changes."""

import struct
import time
from pathlib import Path

import numpy as np

from edgeqwen.cache.disk import allocate, boot_identity, refusals, replacement, write
from edgeqwen.cache.session_format import (
    FIRST_UNIT,
    KV_OFFSET,
    SEAL_OFFSET,
    UNIT_BYTES,
    Commit,
    Extent,
    Identity,
    units,
)
from edgeqwen.cache.session_state import tokens_crc, write_head
from edgeqwen.cache.store import MemoryStore
from edgeqwen.kernels.attention_types import SEGMENT


def write_session(path: Path, identity: Identity, store: MemoryStore) -> None:
    """Writes the tokens, keys and values of a store as a session that is sealed.

    The file appears when it is on the disk. Raises DiskError.
    """
    segment_units = units(KV_OFFSET + identity.layout.segment_bytes)
    extents = [
        Extent(FIRST_UNIT + i * segment_units, segment_units) for i in range(len(store.segments))
    ]
    commit = Commit(
        number=1,
        n_tokens=len(store.tokens),
        tokens_crc=tokens_crc(store.tokens),
        boot=boot_identity(),
        time=time.time(),
        segments=tuple(extent.first for extent in extents),
    )
    with replacement(path) as handle:
        write_head(handle, path, identity, commit.all_stored())
        for i, extent in enumerate(extents):
            allocate(handle, extent.offset, extent.n_units * UNIT_BYTES, path)
            with refusals(path):
                _write_segment(handle, extent, identity, store, i)


def session_bytes(identity: Identity, store: MemoryStore) -> int:
    """Returns how large the file will be."""
    segment_units = units(KV_OFFSET + identity.layout.segment_bytes)
    return (FIRST_UNIT + len(store.segments) * segment_units) * UNIT_BYTES


def _write_segment(
    handle: int, extent: Extent, identity: Identity, store: MemoryStore, i: int
) -> None:
    ids = np.array(store.tokens[i * SEGMENT : (i + 1) * SEGMENT], "<i4")
    kv = store.segments[i].view(0, identity.layout.segment_bytes)
    write(handle, extent.offset, ids.tobytes())
    seal = struct.pack("<II", len(ids), identity.layout.checksum(kv, len(ids)))
    write(handle, extent.offset + SEAL_OFFSET, seal)
    write(handle, extent.offset + KV_OFFSET, kv.data)
