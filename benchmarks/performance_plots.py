"""The plots of docs/performance.md, each from the parts of performance.json that it shows."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.plot_parts import BLUE, GREEN, GREY, ORANGE, grid, svg
from benchmarks.runtimes import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records = Mapping[str, Mapping[str, Any]]  # of a part, by model
PHASES = (("prefill", "prefill_tps"), ("decode", "decode_tps"))
_COLORS = dict(zip(NAMES, (BLUE, ORANGE), strict=True))
_MARKERS = dict(zip(NAMES, ("o", "s"), strict=True))
_BAR = 0.38


def write_plots(parts: Mapping[str, Records], folder: Path) -> list[str]:
    """Writes a plot for every part that has one; returns the parts."""
    drawn = [name for name in PLOTS if name in parts]
    for name in drawn:
        PLOTS[name](parts[name], folder / f"performance-{name}.svg")
    return drawn


def _plot_table(records: Records, path: Path) -> None:
    """Bars for every model and depth: prefill above, decode below."""
    cells = [
        (f"{model}\nat {cell['depth']}", cell)
        for model, record in records.items()
        for cell in record["cells"]
    ]
    with svg(path, max(4.5, 1.05 * len(cells)), 5.6) as figure:
        for axes, (phase, key) in zip(figure.subplots(2, sharex=True), PHASES, strict=True):
            for i, name in enumerate(NAMES):
                places = [x + (i - 0.5) * _BAR for x in range(len(cells))]
                values = [cell[name][key] for _, cell in cells]
                axes.bar(places, values, _BAR, color=_COLORS[name], label=name)
            axes.set_xticks(range(len(cells)), [label for label, _ in cells])
            _finish(axes, phase)
        figure.axes[0].legend(frameon=False)


def _plot_lines(x_key: str, x_label: str) -> Callable[[Records, Path], None]:
    """Makes a plot of both phases' tokens/s against one of a cell's fields."""

    def plot(records: Records, path: Path) -> None:
        (record,) = records.values()
        x = [cell[x_key] for cell in record["cells"]]
        with svg(path, 7, 3.4) as figure:
            for axes, (phase, key) in zip(figure.subplots(1, 2), PHASES, strict=True):
                for name in NAMES:
                    values = [cell[name][key] for cell in record["cells"]]
                    look = {"color": _COLORS[name], "marker": _MARKERS[name], "label": name}
                    axes.plot(x, values, **look)
                axes.set_xlabel(x_label)
                axes.set_xticks(x if len(x) < 5 else x[:1] + x[2:], minor=False)
                _finish(axes, phase)
            figure.axes[0].legend(frameon=False)

    return plot


def _plot_start(records: Records, path: Path) -> None:
    """Bars of the time to the first token, and of the memory that it takes."""
    bars = [
        (f"{model}\n{name.replace(', ', chr(10))}", name.partition(",")[0], found)
        for model, record in records.items()
        for name, found in record["contestants"].items()
    ]
    with svg(path, max(4.5, 1.0 * len(bars)), 5.6) as figure:
        upper, lower = figure.subplots(2, sharex=True)
        colors = [_COLORS[runtime] for _, runtime, _ in bars]
        places = range(len(bars))
        upper.bar(places, [found["first_token_s"] for *_, found in bars], color=colors)
        upper.set_ylabel("first token, s")
        peaks = [found["peak_rss_bytes"] / 1e6 for *_, found in bars]
        lower.bar(places, peaks, color=colors)
        lower.set_ylabel("peak resident memory, MB")
        lower.set_xticks(places, [label for label, *_ in bars])
        for axes in (upper, lower):
            grid(axes)


def _plot_scaling(records: Records, path: Path) -> None:
    """Predicted tokens/s against cores, by what memory gives at most, and what was measured."""
    (record,) = records.values()
    looks = zip((GREY, GREEN, BLUE), (":", "--", "-"), strict=True)
    styles = dict(zip(record["ceilings_bytes_per_s"], looks, strict=False))
    with svg(path, 7, 3.6) as figure:
        for axes, (phase, step) in zip(figure.subplots(1, 2), record["steps"].items(), strict=True):
            for ceiling, predicted in step["predicted_tps"].items():
                color, line = styles[ceiling]
                label = "no ceiling" if ceiling == "none" else f"memory {ceiling}"
                axes.plot(*_points(predicted), line, color=color, label=label)
            axes.plot(*_points(step["measured_tps"]), "D", color=ORANGE, label="measured")
            axes.set_xlabel("cores")
            axes.set_xticks([1, 4, 8, 12, 16])
            _finish(axes, phase)
        figure.axes[0].legend(frameon=False)


def _points(by_cores: Mapping[str, float]) -> tuple[list[int], Sequence[float]]:
    return [int(n) for n in by_cores], list(by_cores.values())


def _finish(axes: "Axes", phase: str) -> None:
    axes.set_ylabel(f"{phase}, tokens/s")
    axes.set_ylim(bottom=0)
    grid(axes)


PLOTS: dict[str, Callable[[Records, Path], None]] = {
    "table": _plot_table,
    "depth": _plot_lines("depth", "tokens in the context"),
    "threads": _plot_lines("n_threads", "threads"),
    "start": _plot_start,
    "scaling": _plot_scaling,
}
