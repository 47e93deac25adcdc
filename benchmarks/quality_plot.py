"""docs/quality.svg: what a format loses, against its bits per weight."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.format_order import SAME_KL, Figures, n_right
from benchmarks.task_scores import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From Okabe and Ito's colours, which are told apart with any kind of colour vision.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#595959"


def write_plot(formats: Sequence[Figures], path: Path) -> None:
    """Writes the plot; the same figures give the same bytes with the same matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.hashsalt": "edgeqwen",
        "svg.fonttype": "none",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(7, 6.4), facecolor="white", layout="constrained")
        upper, lower = figure.subplots(2, sharex=True)
        _plot_divergence(upper, formats)
        _plot_answers(lower, formats)
        lower.set_xscale("log", base=2)
        bits = [f["bits_per_weight"] for f in formats]
        lowest, highest = min(bits) * 0.85, max(bits) * 1.45
        lower.set_xlim(lowest, highest)
        ticks = [n for n in (2, 3, 4, 6, 8, 12, 16, 24, 32) if lowest < n < highest]
        lower.set_xticks(ticks, [str(n) for n in ticks])
        lower.minorticks_off()
        lower.set_xlabel("bits per weight")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _plot_divergence(axes: "Axes", formats: Sequence[Figures]) -> None:
    """Draws the KL divergence; where there is none, an open mark stands on the lower edge."""
    differing = [f for f in formats if f["kl"] > SAME_KL]
    same = [f for f in formats if f["kl"] <= SAME_KL]
    axes.set_yscale("log")
    lowest = min((f["kl"] for f in differing), default=1e-3) / 10
    axes.errorbar(
        [f["bits_per_weight"] for f in differing],
        [f["kl"] for f in differing],
        yerr=[f["kl_se"] for f in differing],
        fmt="o",
        color=_BLUE,
        capsize=3,
    )
    axes.plot(
        [f["bits_per_weight"] for f in same], [lowest] * len(same), "v", mfc="white", mec=_BLUE
    )
    _name(axes, [(f, f["kl"], "") for f in differing])
    _name(axes, [(f, lowest, ": none") for f in same])
    axes.set_ylim(lowest / 2, max((f["kl"] for f in differing), default=1e-2) * 5)
    axes.set_ylabel("KL divergence from F16, nats")
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)


def _plot_answers(axes: "Axes", formats: Sequence[Figures]) -> None:
    """Draws the share of right answers with its 95 % interval."""
    points = []
    for f in formats:
        right, n = n_right(f)
        low, high = wilson_interval(right, n)
        points.append((f, 100 * right / n, 100 * low, 100 * high))
    axes.errorbar(
        [f["bits_per_weight"] for f, *_ in points],
        [y for _, y, _, _ in points],
        yerr=[[y - low for _, y, low, _ in points], [high - y for _, y, _, high in points]],
        fmt="s",
        color=_ORANGE,
        capsize=3,
    )
    _name(axes, [(f, y, "") for f, y, _, _ in points])
    axes.set_ylabel("right answers, %")
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    axes.set_axisbelow(True)


def _name(axes: "Axes", points: Sequence[tuple[Figures, float, str]]) -> None:
    """Writes formats beside their marks, those of one size above one another."""
    n_there: dict[float, int] = {}
    for f, y, suffix in points:
        size = round(f["bits_per_weight"], 1)
        line = n_there[size] = n_there.get(size, 0) + 1
        axes.annotate(
            f["type"].upper() + suffix,
            (f["bits_per_weight"], y),
            xytext=(8, 6 if line == 1 else -14),
            textcoords="offset points",
            color=_GREY,
        )
