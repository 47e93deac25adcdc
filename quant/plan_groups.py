"""Groups of tensors that are treated alike, so that the plan of a large model can be read."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.report import TensorReport

_LAYER = re.compile(r"^blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors of one name in several layers, of one shape, one type before and one after.

    ``name`` names all their layers: ``blk.0-9,12,15..69,72-79.attn_v.weight``, where two dots
    stand for what goes on as it began. ``n_bytes`` is what they take together.
    """

    name: str
    n_tensors: int
    shape: tuple[int, ...]
    source_type: GgmlType
    type: GgmlType
    n_bytes: int


def group_layers(tensors: Iterable[TensorReport]) -> list[TensorGroup]:
    """Returns all tensors in groups, in the order in which they begin; those of a name together."""
    parts: dict[str, dict[object, list[TensorReport]]] = {}
    for tensor in tensors:
        part = _LAYER.sub("blk.*.", tensor.name)
        alike = (tensor.shape, tensor.source_type, tensor.type)
        parts.setdefault(part, {}).setdefault(alike, []).append(tensor)
    return [_group(part, found) for part, groups in parts.items() for found in groups.values()]


def _group(part: str, tensors: Sequence[TensorReport]) -> TensorGroup:
    layers = [int(match[1]) for tensor in tensors if (match := _LAYER.match(tensor.name))]
    first, n_bytes = tensors[0], sum(tensor.n_bytes for tensor in tensors)
    return TensorGroup(
        part.replace("*", number_ranges(layers)),
        len(tensors),
        first.shape,
        first.source_type,
        first.type,
        n_bytes,
    )


def number_ranges(numbers: Iterable[int]) -> str:
    """Returns different numbers in few characters: "0-9,12,15..69,72-79".

    Runs that are equally long and equally far apart are shown by two and the last of them.
    """
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    shown = []
    while runs:
        n = _regular(runs)
        if n > 3:
            shown.append(f"{_run(runs[0])},{_run(runs[1])}..{_run(runs[n - 1])}")
        else:  # as short one after the other
            n = 1
            shown.append(_run(runs[0]))
        runs = runs[n:]
    return ",".join(shown)


def _regular(runs: Sequence[tuple[int, int]]) -> int:
    """Returns how many runs at the start are equally long and equally far apart."""
    n = 1
    while n < len(runs):
        (start, stop), (last_start, last_stop) = runs[n], runs[n - 1]
        step = runs[1][0] - runs[0][0]
        if stop - start != last_stop - last_start or start - last_start != step:
            break
        n += 1
    return n


def _run(run: tuple[int, int]) -> str:
    return str(run[0]) if run[0] == run[1] else f"{run[0]}-{run[1]}"
