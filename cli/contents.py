"""The contents of a GGUF file, for people and for programs."""

import dataclasses
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from edgeqwen.cli.terminal import clean_line, size_text
from edgeqwen.ggml_types import BITS_IN_MEMORY, GgmlType

if TYPE_CHECKING:
    from edgeqwen.config import ModelConfig
    from edgeqwen.errors import EdgeqwenError
    from edgeqwen.gguf_file import GgufFile

# Longer lists (a vocabulary has 150,000 entries) are shown by their length, longer texts cut.
_MAX_ITEMS = 8
_MAX_TEXT = 60


def as_fields(
    file: "GgufFile", config: "ModelConfig | None", problem: "EdgeqwenError | None"
) -> dict[str, Any]:
    """Returns everything as values that JSON can hold; sizes are in bytes."""
    n_weights, n_bytes = _total(file)
    return {
        "path": str(file.path),
        "version": file.version,
        "file_bytes": file.size,
        "n_weights": n_weights,
        "tensor_bytes": n_bytes,
        "bits_per_weight": _bits(n_bytes, n_weights),
        "config": dataclasses.asdict(config) if config is not None else None,
        "cache_bytes_per_token": _bytes_per_token(config) if config is not None else None,
        "problem": str(problem) if problem is not None else None,
        "metadata": {key: _json_value(value) for key, value in file.metadata.items()},
        "types": [
            {
                "type": name,
                "n_tensors": n,
                "n_weights": weights,
                "n_bytes": size,
                "bits_in_memory": BITS_IN_MEMORY.get(GgmlType[name]),
            }
            for name, n, weights, size in _by_type(file)
        ],
        "tensors": [
            {
                "name": tensor.name,
                "type": tensor.type.name,
                "shape": list(tensor.shape),
                "offset": tensor.offset,
                "n_bytes": tensor.n_bytes,
            }
            for tensor in file.tensors.values()
        ],
    }


def as_text(file: "GgufFile", config: "ModelConfig | None", problem: "EdgeqwenError | None") -> str:
    """Returns everything as aligned lines."""
    n_weights, n_bytes = _total(file)
    bits = _bits(n_bytes, n_weights)
    lines = [
        f"{clean_line(str(file.path))}: GGUF version {file.version}, {size_text(file.size)}",
        f"{len(file.tensors)} tensors, {n_weights:,} weights"
        + (f", {bits:.2f} bits per weight" if bits is not None else ""),
    ]
    lines += ["", "Configuration"]
    if config is not None:
        lines += _table([(key, str(value)) for key, value in dataclasses.asdict(config).items()])
        lines += [
            "",
            f"A context of {config.max_context} tokens takes up to "
            f"{size_text(config.max_context * _bytes_per_token(config))} of memory when it runs, "
            f"{size_text(_bytes_per_token(config))} for each token.",
        ]
    else:
        lines += [f"  none that edgeqwen can run: {clean_line(str(problem))}"]
    lines += ["", "Metadata"]
    lines += _table([(key, _shown(value)) for key, value in file.metadata.items()])
    lines += ["", "Types"]
    lines += _table(
        [
            (name, f"{n} tensors", f"{weights:,} weights", size_text(size), _in_memory(name))
            for name, n, weights, size in _by_type(file)
        ]
    )
    lines += ["", "Tensors (rows x columns)"]
    lines += _table(
        [
            (t.name, t.type.name, " x ".join(map(str, t.shape)), size_text(t.n_bytes))
            for t in file.tensors.values()
        ]
    )
    return "\n".join(lines)


def _total(file: "GgufFile") -> tuple[int, int]:
    tensors = file.tensors.values()
    return sum(math.prod(t.shape) for t in tensors), sum(t.n_bytes for t in tensors)


def _bytes_per_token(config: "ModelConfig") -> int:
    """Returns what a token's keys and values take, unless somebody asks for another type."""
    # Late: nothing else that is shown of a file needs it.
    from edgeqwen.engine import token_bytes

    return token_bytes(config)


def _bits(n_bytes: int, n_weights: int) -> float | None:
    return 8 * n_bytes / n_weights if n_weights else None


def _by_type(file: "GgufFile") -> list[tuple[str, int, int, int]]:
    """Returns (type, tensors, weights, bytes), the largest first."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for tensor in file.tensors.values():
        entry = sums[tensor.type.name]
        entry[0] += 1
        entry[1] += math.prod(tensor.shape)
        entry[2] += tensor.n_bytes
    rows = [(name, n, weights, size) for name, (n, weights, size) in sums.items()]
    return sorted(rows, key=lambda row: -row[3])


def _in_memory(type_name: str) -> str:
    """Says so where a type takes more memory than it does in the file."""
    bits = BITS_IN_MEMORY.get(GgmlType[type_name])
    return f"{bits:.2f} bits per weight when it runs" if bits else ""


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float | bool):
        return value
    if len(value) > _MAX_ITEMS:
        return {"n_items": len(value)}
    return [_json_value(item) for item in value]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        text = clean_line(value[: _MAX_TEXT + 1])
        return (
            text if len(value) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}... ({len(value)} characters)"
        )
    if isinstance(value, int | float):
        return str(value)
    if len(value) > _MAX_ITEMS:
        return f"[{len(value)} items]"
    return f"[{', '.join(_shown(item) for item in value)}]"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Returns indented lines with aligned columns; names from a file can't break them."""
    cleaned = [tuple(clean_line(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cleaned, strict=True)]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in cleaned
    ]
