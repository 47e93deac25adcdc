"""The digest of a model's weights, by which sessions know their model. Computed once for a file."""

import contextlib
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeqwen.folders import keep_in_cache, user_cache
from edgeqwen.gguf_file import GgufFile
from edgeqwen.gguf_packed import source_digest

# Hashed at once, each by a thread of its own.
PART_BYTES = 16 << 20


def weights_digest(file: GgufFile, n_threads: int) -> bytes:
    """Returns the SHA-256 digest (32 bytes) of the tensors' names, types, shapes and bytes.

    It is kept in the user's cache folder by what the system says of the files: a file that is
    written to has a new time and size, and is read again. A packed file tells that of its source.
    """
    if (told := _told(file)) is not None:
        return told
    known = _place(file)
    with contextlib.suppress(OSError, ValueError):
        digest = bytes.fromhex(known.read_text())
        if len(digest) == 32:
            return digest
    digest = _digest(file, n_threads)
    keep_in_cache(known, digest.hex().encode())
    return digest


def is_known(file: GgufFile) -> bool:
    """Whether the digest was computed before, so that asking for it takes no time."""
    return _told(file) is not None or _place(file).exists()


def _told(file: GgufFile) -> bytes | None:
    return source_digest(file.metadata) if file.is_packed else None


def _place(file: GgufFile) -> Path:
    """Returns the file that keeps the digest, named by the identity of the model's files."""
    identity = []
    for path in file.paths:
        status = path.stat()
        identity.append(
            (
                str(path.resolve()),
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,  # can't be set back, except on Windows
            )
        )
    name = hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
    return user_cache() / "weights" / name


def _digest(file: GgufFile, n_threads: int) -> bytes:
    parts = [
        (name, start, min(start + PART_BYTES, tensor.n_bytes))
        for name, tensor in file.tensors.items()
        for start in range(0, tensor.n_bytes, PART_BYTES)
    ]

    def digest_of(part: tuple[str, int, int]) -> bytes:
        name, start, stop = part
        found = hashlib.sha256(file.data(name)[start:stop].data).digest()
        if not file.is_packed:  # whose pages are in use
            file.release(name, start, stop)
        return found

    whole = hashlib.sha256()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="edgeqwen-digest")
    try:
        for part, found in zip(parts, pool.map(digest_of, parts), strict=True):
            if part[1] == 0:
                tensor = file.tensors[part[0]]
                told = (tensor.name, tensor.type.name, tensor.shape, tensor.layout, tensor.n_bytes)
                whole.update(repr(told).encode())
            whole.update(found)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C doesn't wait for all of the file
    return whole.digest()
