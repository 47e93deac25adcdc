"""Writing a whole session at once, for a file that never changes."""

import os
import struct
import time
from pathlib import Path

import numpy as np

from edgeqwen.cache.disk import allocate, boot_identity, refusals, write
from edgeqwen.cache.session_format import (
    FIRST_UNIT,
    KV_OFFSET,
    SEAL_OFFSET,
    SLOTS,
    UNIT_BYTES,
    Commit,
    Extent,
    Identity,
    units,
)
from edgeqwen.cache.session_state import BINARY, tokens_crc
from edgeqwen.cache.store import MemoryStore
from edgeqwen.kernels.attention_types import SEGMENT


def write_session(path: Path, identity: Identity, store: MemoryStore) -> None:
    """Writes the tokens, keys and values of a store as a session that is sealed.

    The file appears when it is on the disk. Raises DiskError.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with refusals(path):
        handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
    try:
        segment_units = units(KV_OFFSET + identity.layout.segment_bytes)
        extents = [
            Extent(FIRST_UNIT + i * segment_units, segment_units)
            for i in range(len(store.segments))
        ]
        end = extents[-1].end if extents else FIRST_UNIT
        allocate(handle, 0, end * UNIT_BYTES, path)
        commit = Commit(
            number=1,
            n_tokens=len(store.tokens),
            tokens_crc=tokens_crc(store.tokens),
            n_stored=len(store.tokens),
            boot=boot_identity(),
            time=time.time(),
            segments=tuple(extent.first for extent in extents),
        )
        with refusals(path):
            write(handle, 0, identity.encode())
            write(handle, SLOTS[1] * UNIT_BYTES, commit.encode())
            for i, extent in enumerate(extents):
                _write_segment(handle, extent, identity, store, i)
            os.fsync(handle)
            os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _write_segment(
    handle: int, extent: Extent, identity: Identity, store: MemoryStore, i: int
) -> None:
    ids = np.array(store.tokens[i * SEGMENT : (i + 1) * SEGMENT], "<i4")
    kv = store.segments[i].view(0, identity.layout.segment_bytes)
    write(handle, extent.offset, ids.tobytes())
    seal = struct.pack("<II", len(ids), identity.layout.checksum(kv, len(ids)))
    write(handle, extent.offset + SEAL_OFFSET, seal)
    write(handle, extent.offset + KV_OFFSET, kv.data)
