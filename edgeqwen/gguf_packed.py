"""Packed files: a GGUF whose matrices lie in it as kernels read them, to be mapped and used.

The container is a GGUF like any other: header, metadata, vocabulary, norms and biases are those of
the file that was packed. A matrix is a tensor of type I8, of as many elements as its tiles have
bytes, under its own name. What it stands for is told by the metadata:

- ``edgeqwen.packed.version``: LAYOUT_VERSION, of all tile layouts together;
- ``edgeqwen.packed.tensors``: the names of the matrices;
- ``edgeqwen.packed.layouts``: for each, the name of the format whose tiles they are;
- ``edgeqwen.packed.types``: for each, the number of the GGML type that was packed;
- ``edgeqwen.packed.shapes``: for each, rows and columns;
- ``edgeqwen.packed.source``: the digest of the weights that were packed, in hexadecimal: keys and
  values that were computed with them fit the packed file, too. (Older files lack it.)

``edgeqwen.formats`` describes the tiles.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeqwen.config_keys import shown
from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_tensors import TensorInfo

LAYOUT_VERSION = 1
"""Grows when the tiles of any format change: files of another version are refused."""

PREFIX = "edgeqwen.packed."


def packed_metadata(
    matrices: Sequence[TensorInfo], layouts: Sequence[str], source: bytes
) -> dict[str, Any]:
    """Returns what a packed file says of its matrices, given as they were before.

    ``source`` is the digest of all weights that were packed.
    """
    return {
        f"{PREFIX}source": source.hex(),
        f"{PREFIX}version": LAYOUT_VERSION,
        f"{PREFIX}tensors": [tensor.name for tensor in matrices],
        f"{PREFIX}layouts": list(layouts),
        f"{PREFIX}types": np.array([tensor.type for tensor in matrices], np.int32),
        f"{PREFIX}shapes": np.array([tensor.shape for tensor in matrices], np.uint64).reshape(-1),
    }


def source_digest(metadata: Mapping[str, Any]) -> bytes | None:
    """Returns the digest of the weights that were packed, if a file tells it."""
    value = metadata.get(f"{PREFIX}source")
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return None
    return digest if len(digest) == 32 else None


def described(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, Any], source: str
) -> dict[str, TensorInfo]:
    """Returns a file's tensors; in a packed one, matrices as what they stand for.

    Their ``n_bytes`` remain those in the file: whether tiles take so many, who knows the formats
    has to check. Raises UnsupportedError for another layout version, FileFormatError where keys
    are missing or contradict the tensors.
    """
    found = dict(tensors)
    version = metadata.get(f"{PREFIX}version")
    if version is None:
        return found
    if type(version) is not int or version != LAYOUT_VERSION:
        raise UnsupportedError(
            f"{source}: is packed with layout version {shown(version)}, and this edgeqwen reads "
            f"version {LAYOUT_VERSION}; pack the original file again (edgeqwen pack)"
        )
    names = _list(metadata, "tensors", source)
    layouts = _list(metadata, "layouts", source, len(names))
    types = _integers(metadata, "types", source, len(names))
    shapes = _integers(metadata, "shapes", source, 2 * len(names))
    for i, name in enumerate(names):
        stored = tensors.get(name) if isinstance(name, str) else None
        if stored is None or stored.type != GgmlType.I8 or stored.layout is not None:
            raise _damaged(source, f"tensors[{i}] is {shown(name)}, expected a tensor of type I8")
        if types[i] not in set(GgmlType):
            raise _damaged(source, f"types[{i}] is {shown(types[i])}, expected a GGML type")
        shape = tuple(shapes[2 * i : 2 * i + 2])
        if min(shape) < 1:
            raise _damaged(source, f"shapes of {name} are {shape}, expected rows and columns")
        if not isinstance(layouts[i], str):
            raise _damaged(source, f"layouts[{i}] is {shown(layouts[i])}, expected a name")
        found[name] = TensorInfo(
            name, GgmlType(types[i]), shape, stored.offset, stored.n_bytes, layouts[i]
        )
    loose = [t.name for t in found.values() if len(t.shape) > 1 and t.layout is None]
    if loose:
        raise _damaged(source, f"tensors lacks {loose[0]}, expected every matrix")
    return found


def _list(metadata: Mapping[str, Any], name: str, source: str, n: int | None = None) -> list[Any]:
    value = metadata.get(PREFIX + name)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _damaged(source, f"{name} is missing or no list")
    if n is not None and len(value) != n:
        raise _damaged(source, f"{name} has {len(value)} elements, expected {n}")
    return list(value)


def _integers(metadata: Mapping[str, Any], name: str, source: str, n: int) -> list[int]:
    values = _list(metadata, name, source, n)
    for i, value in enumerate(values):
        if type(value) is not int:
            raise _damaged(source, f"{name}[{i}] is {shown(value)}, expected a whole number")
    return values


def _damaged(source: str, problem: str) -> FileFormatError:
    return FileFormatError(
        f"{source}: {PREFIX}{problem}; the file is damaged: pack the original one again "
        "(edgeqwen pack)"
    )
