"""docs/calibration.svg: the KL divergence of every recipe by every method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# From Okabe and Ito's colours, which are told apart with any kind of colour vision.
_LOOKS = {
    "plain": ("#595959", "o"),
    "imatrix": ("#0072B2", "s"),
    "calibrate": ("#D55E00", "D"),
}
_LABELS = {"plain": "plain", "imatrix": "--imatrix", "calibrate": "--calibrate"}
_APART = 0.16  # of the distance of two recipes, so that marks don't hide each other


def write_plot(recipes: Sequence[Mapping[str, Any]], path: Path) -> None:
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
        figure = Figure(figsize=(8, 4.2), facecolor="white", layout="constrained")
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
        axes.grid(axis="y", color="#e0e0e0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="upper left")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _name(recipe: Mapping[str, Any]) -> str:
    """Returns a recipe's name and its bits per weight."""
    return f"{recipe['type'].upper()} ({recipe['methods']['plain']['bits_per_weight']:.2f})"
