"""Builds GGUF files byte by byte, for those that no sane writer would write."""

import struct


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(
    name: str | bytes, shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0
) -> bytes:
    """Returns a tensor's entry; the shape is in the file's order, columns first."""
    numbers = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return text(name) + numbers


def raw(
    *pairs: bytes,
    tensors: tuple[bytes, ...] = (),
    data: int = 64,
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    """Returns a GGUF file from its parts, with ``data`` bytes behind the padded header."""
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_keys is None else n_keys,
    )
    header = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs + tensors)
    return header + bytes(-len(header) % 32 + data)
