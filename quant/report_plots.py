"""The plots of a report, as SVG: errors by layer, cosines, bytes by type, histograms."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeqwen.quant.markup import Markup, element, joined, text
from edgeqwen.quant.report import TensorReport, TypeTotal
from edgeqwen.quant.report_axes import LogAxis, percent, round_percent, size

_LAYER = re.compile(r"^blk\.(\d{1,6})\.(.+)$")
# Names of kinds are cut where they would run into a plot.
_MAX_LABEL = 16
# Of sums in float64, with room: a smaller 1 - cosine says nothing.
_ROUNDING = 1e-13

# In units of a plot's own width, of which one is about a pixel.
_PANEL_WIDTH, _PANEL_HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 30, 24
_WIDE = 460
_ROW = 24
_BAR_ROW = 38
_SPARK_BAR, _SPARK_HEIGHT = 2, 20


@dataclass(frozen=True, slots=True)
class Kind:
    """Tensors of one name in all layers: by layer, or a single one that belongs to none."""

    name: str
    tensors: Mapping[int | None, TensorReport]


def kinds(tensors: Sequence[TensorReport]) -> list[Kind]:
    """Returns all tensors by their names without layer and without ``.weight``, in their order."""
    found: dict[str, dict[int | None, TensorReport]] = {}
    for tensor in tensors:
        match = _LAYER.match(tensor.name)
        name = (match[2] if match else tensor.name).removesuffix(".weight")
        found.setdefault(name, {})[int(match[1]) if match else None] = tensor
    return [Kind(name, members) for name, members in found.items()]


def relative_error(tensor: TensorReport) -> float:
    """Returns the relative RMSE, 0 where nothing was measured or all weights are 0."""
    found = tensor.errors.relative_rmse if tensor.errors is not None else 0.0
    return found if math.isfinite(found) else 0.0


def angle(tensor: TensorReport) -> float:
    """Returns 1 - cosine, 0 where nothing was measured or it is no more than rounding."""
    found = 1 - tensor.errors.cosine if tensor.errors is not None else 0.0
    return found if found > _ROUNDING else 0.0


def layer_panels(tensors: Sequence[TensorReport]) -> list[Markup]:
    """Returns a plot for each kind of tensor that layers have and that has errors.

    Relative RMSE by layer, on the same axes in all of them: the kind's own line stands out from
    those of the others. A tensor without errors is an open mark on the lower edge.
    """
    shown = [
        kind
        for kind in kinds(tensors)
        if None not in kind.tensors and any(map(relative_error, kind.tensors.values()))
    ]
    if not shown:
        return []
    every = [relative_error(tensor) for kind in shown for tensor in kind.tensors.values()]
    axis = LogAxis.around(error for error in every if error)
    last = max(layer for kind in shown for layer in kind.tensors if layer is not None)
    lines = {kind.name: _line(kind, axis, last) for kind in shown}
    return [_panel(kind, lines, axis, last) for kind in shown]


def cosine_plot(tensors: Sequence[TensorReport]) -> Markup | None:
    """Returns a row for each kind, with a mark for each tensor at 1 - cosine; None if all are 0."""
    shown = [
        (kind.name, [tensor for tensor in kind.tensors.values() if angle(tensor) > 0])
        for kind in kinds(tensors)
    ]
    shown = [(name, members) for name, members in shown if members]
    if not shown:
        return None
    axis = LogAxis.around(angle(tensor) for _, members in shown for tensor in members)
    left, width, bottom = 116, _WIDE - 116 - 24, len(shown) * _ROW + 6
    parts = []
    for tick in axis.ticks:
        x = left + axis.place(tick) * width
        parts += [_rule(x, 0, x, bottom), _label(x, bottom + 16, f"{tick:g}", "middle")]
    for i, (name, members) in enumerate(shown):
        y = i * _ROW + _ROW / 2 + 3
        parts.append(_label(left - 10, y + 4, _cut(name), "end", "name"))
        for tensor in members:
            note = f"{tensor.name}: 1 − cosine {angle(tensor):.3g}, {tensor.type.name}"
            parts.append(_mark(left + axis.place(angle(tensor)) * width, y, 4, "dot faint", note))
    return _svg(_WIDE, bottom + 24, "1 − cosine of every tensor, by kind", parts)


def type_bars(totals: Sequence[TypeTotal]) -> Markup:
    """Returns a bar for each type, as long as the bytes of its tensors."""
    most, whole = totals[0].n_bytes, sum(total.n_bytes for total in totals)
    parts = []
    for i, total in enumerate(totals):
        y = i * _BAR_ROW
        n = f"{total.n_tensors} tensor{'s' * (total.n_tensors != 1)}"
        label = f"{size(total.n_bytes)}, {percent(total.n_bytes / whole)}; {n}"
        place: dict[str, str | float] = {"x": 0, "y": y + 20, "height": 10, "rx": 2}
        bar = {**place, "width": max(1.0, total.n_bytes / most * _WIDE), "class": "bar"}
        parts.append(_label(0, y + 14, total.type.name, "start", "name"))
        parts.append(_label(_WIDE, y + 14, label, "end"))
        parts.append(element("rect", attributes=bar))
    return _svg(_WIDE, len(totals) * _BAR_ROW, "Bytes by type", parts)


def sparkline(counts: Sequence[int]) -> Markup:
    """Returns a histogram, small enough for a line of a table."""
    most, path = max(counts), ""
    for i, count in enumerate(counts):
        if count:
            # What is there at all can be seen.
            height = max(1.0, round(count / most * _SPARK_HEIGHT, 1))
            path += f"M{i * _SPARK_BAR} {_SPARK_HEIGHT}v-{height:g}h{_SPARK_BAR}v{height:g}z"
    width = len(counts) * _SPARK_BAR
    line = _rule(0, _SPARK_HEIGHT + 0.5, width, _SPARK_HEIGHT + 0.5)
    bars = element("path", attributes={"d": path, "class": "bar"})
    return _svg(width, _SPARK_HEIGHT + 1, "Histogram of errors", [line, bars], fixed=True)


def _panel(kind: Kind, lines: Mapping[str, str], axis: LogAxis, last: int) -> Markup:
    """Returns one kind's plot, with the lines of the others behind its own."""
    right = _PANEL_WIDTH - _RIGHT
    largest = max(map(relative_error, kind.tensors.values()))
    parts = [
        _label(_LEFT, 16, _cut(kind.name), "start", "name"),
        _label(right, 16, f"up to {percent(largest)}", "end"),
    ]
    for tick in axis.ticks:
        y = _error_place(tick, axis)
        parts += [_rule(_LEFT, y, right, y), _label(_LEFT - 6, y + 4, round_percent(tick), "end")]
    for n in sorted({0, last // 2, last}):
        parts.append(_label(_layer_place(n, last), _PANEL_HEIGHT - 6, str(n), "middle"))
    others = "".join(line for name, line in lines.items() if name != kind.name)
    parts.append(element("path", attributes={"d": others, "class": "others"}))
    parts.append(element("path", attributes={"d": lines[kind.name], "class": "line"}))
    for layer, tensor in kind.tensors.items():
        error = relative_error(tensor)
        note = f"{tensor.name}: {percent(error)}, {tensor.type.name}"
        x, y = _layer_place(layer or 0, last), _error_place(error, axis)
        parts.append(_mark(x, y, 2.4, "dot" if error else "dot open", note))
    return _svg(_PANEL_WIDTH, _PANEL_HEIGHT, f"Relative RMSE of {kind.name} by layer", parts)


def _line(kind: Kind, axis: LogAxis, last: int) -> str:
    """Returns the path through a kind's errors, in the order of layers."""
    path = ""
    for layer, tensor in sorted(kind.tensors.items(), key=lambda item: item[0] or 0):
        if error := relative_error(tensor):
            x, y = _layer_place(layer or 0, last), _error_place(error, axis)
            path += f"{'L' if path else 'M'}{x:.1f} {y:.1f}"
    return path


def _error_place(error: float, axis: LogAxis) -> float:
    """Returns an error's y; that of none is the lower edge."""
    height = _PANEL_HEIGHT - _BOTTOM - _TOP
    return _TOP + height * (1 - (axis.place(error) if error else 0))


def _layer_place(layer: int, last: int) -> float:
    """Returns a layer's x; the only one of a model stands in the middle."""
    first, width = _LEFT + 8, _PANEL_WIDTH - _RIGHT - _LEFT - 16
    return first + width * (layer / last if last else 0.5)


def _svg(
    width: float, height: float, label: str, parts: Sequence[Markup], *, fixed: bool = False
) -> Markup:
    """Returns a picture as wide as its place, or of its own size if that is ``fixed``."""
    attributes: dict[str, str | float] = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "role": "img",
        "aria-label": label,
    }
    if fixed:
        attributes |= {"width": width, "height": height}
    return element("svg", joined(parts), attributes=attributes)


def _label(x: float, y: float, content: str, anchor: str, kind: str = "label") -> Markup:
    attributes: dict[str, str | float] = {"x": x, "y": y, "text-anchor": anchor, "class": kind}
    return element("text", text(content), attributes=attributes)


def _rule(x1: float, y1: float, x2: float, y2: float) -> Markup:
    attributes: dict[str, str | float] = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": "rule"}
    return element("line", attributes=attributes)


def _mark(x: float, y: float, radius: float, kind: str, note: str) -> Markup:
    """Returns a mark that tells more where a pointer rests on it."""
    attributes: dict[str, str | float] = {"cx": x, "cy": y, "r": radius, "class": kind}
    return element("circle", element("title", text(note)), attributes=attributes)


def _cut(name: str) -> str:
    return name if len(name) <= _MAX_LABEL else name[: _MAX_LABEL - 1] + "…"
