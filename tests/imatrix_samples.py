"""Writes importance matrix files as llama.cpp lays them out, through ``gguf.GGUFWriter``."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

METADATA: dict[str, Any] = {
    "general.type": "imatrix",
    "imatrix.datasets": ["calibration.txt"],
    "imatrix.chunk_count": 3,
    "imatrix.chunk_size": 512,
}


def sums(n_columns: int, seed: int = 0) -> np.ndarray:
    """Returns sums of squares as float32, over some orders of magnitude."""
    rng = np.random.default_rng(seed)
    return (10.0 ** rng.uniform(-6, 6, n_columns)).astype(np.float32)


def entry(n_columns: int, count: float = 1536, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return sums(n_columns, seed), np.array([count], np.float32)


def write_gguf_imatrix(
    path: Path,
    entries: Mapping[str, tuple[np.ndarray, np.ndarray]],
    metadata: Mapping[str, Any] | None = None,
    others: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Writes (in_sum2, counts) by tensor name; None in ``metadata`` leaves a key out.

    ``others`` are tensors besides, by their full names.
    """
    writer = gguf.GGUFWriter(path, "unused")
    writer.kv_data[0].clear()  # the tool writes no architecture
    for key, value in {**METADATA, **(metadata or {})}.items():
        match value:
            case None:
                pass
            case str():
                writer.add_string(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case _:
                writer.add_array(key, value)
    for name, (in_sum2, counts) in entries.items():
        writer.add_tensor(f"{name}.in_sum2", in_sum2)
        writer.add_tensor(f"{name}.counts", counts)
    for name, tensor in (others or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def legacy_bytes(
    entries: Mapping[str | bytes, tuple[np.ndarray, int]],
    *,
    n_entries: int | None = None,
    end: bytes | None = None,
) -> bytes:
    """Returns a .dat file: (mean squares times windows, windows) by tensor name."""

    def text(value: str | bytes) -> bytes:
        data = value if isinstance(value, bytes) else value.encode()
        return struct.pack("<i", len(data)) + data

    content = struct.pack("<i", len(entries) if n_entries is None else n_entries)
    for name, (values, n_windows) in entries.items():
        content += text(name) + struct.pack("<ii", n_windows, len(values))
        content += values.astype("<f4").tobytes()
    return content + (struct.pack("<i", 3) + text("old.txt") if end is None else end)
