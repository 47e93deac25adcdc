"""docs/quality.svg: what a format loses, against its bits per weight."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.format_order import SAME_KL, Figures, n_right
from benchmarks.plot_parts import BLUE, GREY, ORANGE, grid, svg
from benchmarks.task_scores import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In points: the width that a character takes at most, the height of a line of names, and how far
# above or below its mark a name may be without a line to it.
_CHARACTER, _LINE, _BESIDE = 7.0, 12.0, 4.0

Point = tuple[str, float, float]  # what the mark is called, and where it is
Box = tuple[float, float, float, float]  # left, bottom, right, top


def write_plot(formats: Sequence[Figures], path: Path) -> None:
    """Writes the plot; the same figures give the same bytes with the same matplotlib."""
    with svg(path, 7, 6.4) as figure:
        upper, lower = figure.subplots(2, sharex=True)
        named = [
            (upper, _plot_divergence(upper, formats)),
            (lower, _plot_answers(lower, formats)),
        ]
        lower.set_xscale("log", base=2)
        bits = [f["bits_per_weight"] for f in formats]
        lowest, highest = min(bits) * 0.85, max(bits) * 1.45
        lower.set_xlim(lowest, highest)
        ticks = [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if lowest < n < highest]
        lower.set_xticks(ticks, [str(n) for n in ticks])
        lower.minorticks_off()
        lower.set_xlabel("bits per weight")
        # Names need to know where the marks lie on the page.
        figure.draw_without_rendering()
        for axes, points in named:
            _name(axes, points)


def _plot_divergence(axes: "Axes", formats: Sequence[Figures]) -> list[Point]:
    """Draws the KL divergence; where there is none, an open mark stands on the lower edge.

    Returns what the marks are called.
    """
    differing = [f for f in formats if f["kl"] > SAME_KL]
    same = [f for f in formats if f["kl"] <= SAME_KL]
    axes.set_yscale("log")
    lowest = min((f["kl"] for f in differing), default=1e-3) / 10
    axes.errorbar(
        [f["bits_per_weight"] for f in differing],
        [f["kl"] for f in differing],
        yerr=[f["kl_se"] for f in differing],
        fmt="o",
        color=BLUE,
        capsize=3,
    )
    axes.plot(
        [f["bits_per_weight"] for f in same], [lowest] * len(same), "v", mfc="white", mec=BLUE
    )
    axes.set_ylim(lowest / 2, max((f["kl"] for f in differing), default=1e-2) * 5)
    axes.set_ylabel("KL divergence from F16, nats")
    grid(axes)
    return [
        *((f["type"].upper(), f["bits_per_weight"], f["kl"]) for f in differing),
        *((f"{f['type'].upper()}: none", f["bits_per_weight"], lowest) for f in same),
    ]


def _plot_answers(axes: "Axes", formats: Sequence[Figures]) -> list[Point]:
    """Draws the share of right answers with its 95 % interval; returns what the marks are called.

    The intervals are about other questions of the kind: formats answered the same, so they differ
    by less than the intervals' widths.
    """
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
        color=ORANGE,
        capsize=3,
    )
    axes.set_ylabel("right answers, %")
    grid(axes)
    return [(f["type"].upper(), f["bits_per_weight"], y) for f, y, _, _ in points]


def _name(axes: "Axes", points: Sequence[Point]) -> None:
    """Writes names beside their marks, with a line to the mark where that is farther off."""
    to_points = 72 / axes.figure.dpi
    pixels = axes.transData.transform([(x, y) for _, x, y in points])
    marks = [(name, *place) for (name, _, _), place in zip(points, pixels * to_points, strict=True)]
    left, bottom, right, top = (edge * to_points for edge in axes.bbox.extents)
    names = name_places(marks, (left, bottom, right, top))
    for (name, x, y), (_, mark_x, mark_y), place in zip(points, marks, names, strict=True):
        far = not place[1] - _BESIDE < mark_y < place[3] + _BESIDE
        axes.annotate(
            name,
            (x, y),
            xytext=(place[0] - mark_x, place[1] - mark_y),
            textcoords="offset points",
            color=GREY,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5} if far else None,
        )


def name_places(marks: Sequence[Point], area: Box) -> list[Box]:
    """Returns a place for each name where it covers no mark and no other name, if there is one.

    ``marks``: name, x and y; all in points (1/72 inch), as are the boxes.
    """
    taken = [(x - 4, y - 4, x + 4, y + 4) for _, x, y in marks]
    places = []
    for name, x, y in marks:
        choices = _choices(name, x, y)
        free = (
            box
            for box in choices
            if _within(box, area) and not any(_overlap(box, other) for other in taken)
        )
        places.append(next(free, choices[0]))
        taken.append(places[-1])
    return places


def _choices(name: str, x: float, y: float) -> list[Box]:
    """Returns boxes about a mark, the best first: near before far, right of it before left."""
    width, height = _CHARACTER * len(name), _LINE
    heights = [sign * step * _LINE for step in (0.5, *range(2, 12)) for sign in (1, -1)]
    return [
        (left, y + up - height / 2, left + width, y + up + height / 2)
        for up in heights
        for left in (x + 8, x - 8 - width)
    ]


def _within(box: Box, area: Box) -> bool:
    return box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] and box[3] <= area[3]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
