"""The tensors that a GGUF file lists: where each lies, and whether that can be true."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from edgeqwen.config import ModelConfig
from edgeqwen.config_keys import shown
from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.ggml_types import WITHDRAWN_TYPES, GgmlType
from edgeqwen.gguf_metadata import HeaderReader

MAX_NAME_LENGTH = 64  # as the GGUF specification has it
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 21

# Tensors that some converters leave in a file and that a Qwen2 network doesn't use.
_HARMLESS = ("rope_freqs.weight",)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: ``shape`` in numpy order (rows, columns), ``offset`` from the file's start.

    ``layout`` names the tiles that a matrix of a packed file holds (``gguf_packed.py``); ``type``
    is then the one that was packed, and ``n_bytes`` what the tiles take.
    """

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    offset: int
    n_bytes: int
    layout: str | None = None


def read_alignment(metadata: Mapping[str, Any], source: str) -> int:
    """Returns the alignment of tensors in bytes."""
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    whole = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole or not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise FileFormatError(
            f"{source}: general.alignment is {shown(alignment)}, "
            f"expected a power of two from 8 to {MAX_ALIGNMENT}"
        )
    return int(alignment)


def read_tensors(reader: HeaderReader, n_tensors: int, alignment: int) -> dict[str, TensorInfo]:
    """Reads the list of tensors and checks names, types, shapes and places against the file."""
    entries = [_read_entry(reader, i) for i in range(n_tensors)]
    start = -(-reader.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, kind, shape, offset in entries:
        if name in tensors:
            raise reader.damaged(f"two tensors are named {name}")
        if offset % alignment:
            raise reader.damaged(
                f"{name} begins at the offset {offset}, expected a multiple of {alignment}"
            )
        n_bytes = prod(shape) // kind.block_size * kind.type_size
        tensors[name] = TensorInfo(name, kind, shape, start + offset, n_bytes)
    _check_places(tensors, reader)
    return tensors


def _read_entry(reader: HeaderReader, index: int) -> tuple[str, GgmlType, tuple[int, ...], int]:
    name = reader.name(f"the name of tensor {index}", MAX_NAME_LENGTH)
    n_dimensions = reader.u32(f"the number of dimensions of {name}")
    if not 1 <= n_dimensions <= MAX_DIMENSIONS:
        raise reader.damaged(f"{name} has {n_dimensions} dimensions, expected 1 to 4")
    # The file names the fastest dimension first, numpy last.
    shape = tuple(reader.u64(f"the shape of {name}") for _ in range(n_dimensions))[::-1]
    if 0 in shape:
        raise reader.damaged(f"{name} has the shape {shape}, which holds nothing")
    number = reader.u32(f"the type of {name}")
    if number in WITHDRAWN_TYPES:
        raise UnsupportedError(
            f"{reader.source}: {name} is of the type {WITHDRAWN_TYPES[number]}, which GGUF has "
            "given up; convert the original checkpoint again"
        )
    try:
        kind = GgmlType(number)
    except ValueError:
        raise UnsupportedError(
            f"{reader.source}: {name} is of the type {number}, which this version doesn't know; "
            "the file is damaged or made by a newer tool"
        ) from None
    if shape[-1] % kind.block_size:
        raise reader.damaged(
            f"{name}: {shape[-1]} columns is not a multiple of {kind.block_size}, "
            f"which {kind.name} needs"
        )
    return name, kind, shape, reader.u64(f"the offset of {name}")


def _check_places(tensors: Mapping[str, TensorInfo], reader: HeaderReader) -> None:
    """Refuses tensors that run past the end of the file or into each other."""
    in_place = sorted(tensors.values(), key=lambda tensor: tensor.offset)
    for i, tensor in enumerate(in_place):
        end = tensor.offset + tensor.n_bytes
        if end > reader.size:
            raise reader.damaged(
                f"{tensor.name} ({tensor.type.name}, shape {tensor.shape}) reaches byte {end}, "
                f"but the file ends at byte {reader.size}"
            )
        if i + 1 < len(in_place) and end > in_place[i + 1].offset:
            raise reader.damaged(
                f"{tensor.name} reaches byte {end}, but {in_place[i + 1].name} "
                f"begins at byte {in_place[i + 1].offset}"
            )


def check_shapes(tensors: Mapping[str, TensorInfo], config: ModelConfig, source: str) -> None:
    """Compares the tensors with what the configuration asks for: all there, in shape, no other."""
    if not tensors:
        raise UnsupportedError(
            f"{source}: holds no tensors, only a vocabulary; a model with weights is needed"
        )
    expected = config.expected_tensors()
    for name, parts in _fused(config).items():
        if name in tensors and not any(part in tensors for part in parts):
            rows = sum(expected.pop(part)[0] for part in parts)
            expected[name] = (rows, config.hidden_size)[: 2 if name.endswith("weight") else 1]
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise FileFormatError(
            f"{source}: {len(missing)} of {len(expected)} tensors are missing, the first is "
            f"{missing[0]} {expected[missing[0]]}; download or convert the file again"
        )
    for name, tensor in tensors.items():
        if name not in expected:
            if name in _HARMLESS:
                continue
            raise UnsupportedError(
                f"{source}: {name} {tensor.shape} is no part of a Qwen2 model of "
                f"{config.n_layers} layers, and leaving it out would change the results"
            )
        if tensor.shape != expected[name]:
            raise FileFormatError(
                f"{source}: {name} has the shape {tensor.shape}, expected {expected[name]} "
                "(rows, columns) from the metadata; the file contradicts itself"
            )


def split_fused(
    tensors: Mapping[str, TensorInfo], config: ModelConfig, source: str
) -> dict[str, list[TensorInfo]]:
    """Returns the rows of each tensor that holds q, k and v in one, as three tensors.

    The tensors have passed ``check_shapes``. Raises FileFormatError for one of a packed file, where
    the three lie apart.
    """
    shapes = config.expected_tensors()
    found: dict[str, list[TensorInfo]] = {}
    for fused, parts in _fused(config).items():
        if fused not in tensors:
            continue
        whole = tensors[fused]
        if whole.layout is not None:
            raise FileFormatError(
                f"{source}: {fused} is packed, expected q, k and v apart from each other; the file "
                "is damaged: pack the original one again (edgeqwen pack)"
            )
        row_bytes = whole.n_bytes // whole.shape[0]
        found[fused], offset = [], whole.offset
        for part in parts:
            n_bytes = shapes[part][0] * row_bytes
            found[fused].append(TensorInfo(part, whole.type, shapes[part], offset, n_bytes))
            offset += n_bytes
    return found


def _fused(config: ModelConfig) -> dict[str, list[str]]:
    """Returns the tensors that may hold q, k and v in one, with the names of the three."""
    return {
        f"blk.{i}.attn_qkv.{kind}": [f"blk.{i}.attn_{n}.{kind}" for n in "qkv"]
        for i in range(config.n_layers)
        for kind in ("weight", "bias")
    }
