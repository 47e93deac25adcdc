"""docs/calibration.svg: the KL divergence of every recipe by every method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plot_parts import BLUE, GREY, ORANGE, grid, svg

_LOOKS = {"plain": (GREY, "o"), "imatrix": (BLUE, "s"), "calibrate": (ORANGE, "D")}
_LABELS = {"plain": "plain", "imatrix": "--imatrix", "calibrate": "--calibrate"}
_APART = 0.16  # of the distance of two recipes, so that marks don't hide each other


def write_plot(recipes: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the plot; the same figures give the same bytes with the same matplotlib."""
    with svg(path, 8, 4.2) as figure:
        axes = figure.subplots()
        axes.set_yscale("log")
        for number, (method, (color, marker)) in enumerate(_LOOKS.items()):
            found = [recipe["methods"][method] for recipe in recipes]
            axes.errorbar(
                [i + _APART * (number - 1) for i in range(len(recipes))],
                [f["kl"] for f in found],
                yerr=[f["kl_se"] for f in found],
                fmt=marker,
                color=color,
                label=_LABELS[method],
                capsize=2,
                markersize=5,
            )
        axes.set_xticks(
            range(len(recipes)),
            [_name(recipe) for recipe in recipes],
            rotation=60,
            rotation_mode="anchor",
            ha="right",
        )
        axes.set_ylabel("KL divergence from F16, nats")
        grid(axes)
        axes.legend(frameon=False, loc="upper left")


def _name(recipe: Mapping[str, Any]) -> str:
    """Returns a recipe's name and its bits per weight."""
    return f"{recipe['type'].upper()} ({recipe['methods']['plain']['bits_per_weight']:.2f})"
