"""Importance matrices as GGUF files, as llama.cpp's imatrix tool writes and reads them.

A matrix's sums are the float32 tensor NAME.in_sum2, its number of tokens the float32 NAME.counts.
Both have one row for each of a tensor's matrices: with experts several, in Qwen2.5 one.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.config_keys import shown
from edgeqwen.errors import FileFormatError, OptionError, UnsupportedError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_arrays import StringArray
from edgeqwen.gguf_shard import GgufShard
from edgeqwen.quant.gguf_values import MetadataValue
from edgeqwen.quant.gguf_writer import GgufWriter, PlannedTensor
from edgeqwen.quant.imatrix_parts import Entry, ImatrixParts, checked_entry

_TYPE, _KIND = "general.type", "imatrix"
_DATASETS, _CHUNK_COUNT, _CHUNK_SIZE = (
    "imatrix.datasets",
    "imatrix.chunk_count",
    "imatrix.chunk_size",
)
_SUMS, _COUNTS = ".in_sum2", ".counts"


def read_gguf(path: Path) -> ImatrixParts:
    """Reads a GGUF file. Raises FileFormatError and UnsupportedError."""
    shard = GgufShard.open(path)
    try:
        names = [name.removesuffix(_SUMS) for name in shard.tensors if name.endswith(_SUMS)]
        for name in shard.tensors:
            if name.endswith(_COUNTS) and name.removesuffix(_COUNTS) + _SUMS not in shard.tensors:
                raise _incomplete(path, name, name.removesuffix(_COUNTS) + _SUMS)
        if not names:
            kind = shard.metadata.get(_TYPE, "model")
            what = "an empty one" if kind == _KIND else f"a GGUF file of the type {shown(kind)}"
            raise FileFormatError(
                f"{path}: is {what}, expected an importance matrix; edgeqwen imatrix makes one "
                "from a model and a text"
            )
        entries = {name: _read_entry(shard, name) for name in names}
        return ImatrixParts(
            entries,
            _count(shard, _CHUNK_COUNT),
            _count(shard, _CHUNK_SIZE),
            _datasets(shard),
        )
    finally:
        shard.close()


def write_gguf(path: Path, parts: ImatrixParts) -> None:
    """Writes a GGUF file, which appears when it is complete. Raises what GgufWriter raises."""
    if not parts.entries:
        raise OptionError(f"{path}: there is nothing to write, for nothing was collected")
    metadata: dict[str, MetadataValue] = {
        _TYPE: _KIND,
        _DATASETS: list(parts.datasets),
        _CHUNK_COUNT: parts.chunk_count,
        _CHUNK_SIZE: parts.chunk_size,
    }
    data: dict[str, NDArray[np.float32]] = {}
    for name, entry in sorted(parts.entries.items()):
        data[name + _SUMS] = entry.in_sum2
        data[name + _COUNTS] = np.array([entry.count], np.float32)
    tensors = [PlannedTensor(name, GgmlType.F32, x.shape) for name, x in data.items()]
    with GgufWriter(path, metadata, tensors) as writer:
        for values in data.values():
            writer.write(values.astype("<f4", copy=False).tobytes())
            writer.end_tensor()


def _read_entry(shard: GgufShard, name: str) -> Entry:
    if name + _COUNTS not in shard.tensors:
        raise _incomplete(shard.path, name + _SUMS, name + _COUNTS)
    for suffix in (_SUMS, _COUNTS):
        tensor = shard.tensors[name + suffix]
        if tensor.type != GgmlType.F32:
            raise FileFormatError(
                f"{shard.path}: {tensor.name} is {tensor.type.name}, expected F32; collect the "
                "importance matrix again"
            )
    counts, sums = _values(shard, name + _COUNTS), _values(shard, name + _SUMS)
    n_matrices = max(len(counts), len(sums) // shard.tensors[name + _SUMS].shape[-1])
    if n_matrices > 1:
        raise UnsupportedError(
            f"{shard.path}: {name} has the sums of {n_matrices} matrices, as models with experts "
            "have them, expected those of one; collect them from a Qwen2.5 model"
        )
    return checked_entry(sums, float(counts[0]), f"{shard.path}: {name}")


def _values(shard: GgufShard, name: str) -> NDArray[np.float32]:
    values: NDArray[np.float32] = shard.data(shard.tensors[name]).view("<f4").astype(np.float32)
    return values


def _incomplete(path: Path, found: str, missing: str) -> FileFormatError:
    return FileFormatError(
        f"{path}: holds {found}, but not {missing}; collect the importance matrix again"
    )


def _count(shard: GgufShard, key: str) -> int:
    value: Any = shard.metadata.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise FileFormatError(
            f"{shard.path}: {key} is {shown(value)}, expected a number from 0 to {(1 << 32) - 1}"
        )
    return value


def _datasets(shard: GgufShard) -> tuple[str, ...]:
    found = shard.metadata.get(_DATASETS, ())
    if found != () and not isinstance(found, StringArray):
        raise FileFormatError(
            f"{shard.path}: {_DATASETS} is {shown(found)}, expected a list of names"
        )
    return tuple(found)
