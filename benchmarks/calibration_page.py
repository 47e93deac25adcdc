"""docs/calibration.md and docs/calibration.svg, written from calibration.json alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.calibration_plot import write_plot
from benchmarks.page_parts import busy_text, origin_text, table, write_page

COMMAND = "python -m benchmarks.calibration"
FIGURES = "calibration.json"
TITLES = {"plain": "plain", "imatrix": "`--imatrix`", "calibrate": "`--calibrate`"}


def write_calibration_page(report: Mapping[str, Any], folder: Path) -> str:
    """Writes the page and its plot; returns the tables, for people who wait for them."""
    write_page(page(report), folder / "calibration.md")
    write_plot(report["recipes"], folder / "calibration.svg")
    return f"{divergence_table(report)}\n\n{quality_table(report)}\n\n{seconds_table(report)}"


def page(report: Mapping[str, Any]) -> str:
    """Returns docs/calibration.md."""
    sections = [
        "# What a text gains",
        "`edgeqwen quantize` can be given a text: as an importance matrix (`--imatrix`, which "
        "`edgeqwen imatrix` makes of it), so that errors in the columns that matter are made "
        "smaller, or to calibrate on (`--calibrate`), so that errors make up for each other. Here "
        "is what each gains for the built-in model, in every type.",
        f"Both read the same {report['n_text_tokens']} tokens of the kind that the model was "
        f"trained on, and all files are measured on the {report['n_tokens']} tokens of the "
        "held-out text, of which no example is in it. The files of a type have the same size, or "
        "nearly: a few recipes choose other types where the importance of columns is known.",
        "![KL divergence of all types by all methods](calibration.svg)",
        "## KL divergence from F16",
        "In nats per token; less is better. A ratio is to the plain file's. Its standard error is "
        "of differences token by token, as both read the same text.",
        divergence_table(report),
        "## Perplexity and first choices",
        "The perplexity of the held-out text, and at how many of its tokens the file and F16 find "
        "the same one likeliest.",
        quality_table(report),
        "## Time",
        f"Seconds on {report['machine']['n_threads']} threads, kernels compiled. The importance "
        f"matrix itself took {report['imatrix_s']:.1f} s, once for all types. "
        f"{busy_text(report['machine'])}".rstrip(),
        seconds_table(report),
        "## How it was made",
        origin_text(report, FIGURES),
    ]
    return "\n\n".join(sections) + "\n"


def divergence_table(report: Mapping[str, Any]) -> str:
    """Returns the table of KL divergences and their ratios, with a row for every recipe."""
    heads = ["type", "bits per weight", "plain"]
    for title in list(TITLES.values())[1:]:
        heads += [title, "ratio"]
    rows = []
    for recipe in report["recipes"]:
        plain, *others = (recipe["methods"][method] for method in TITLES)
        row = [recipe["type"].upper(), f"{plain['bits_per_weight']:.2f}", _kl(plain)]
        for found in others:
            row += [_kl(found), f"{found['kl_ratio']:.3f} ± {found['kl_ratio_se']:.3f}"]
        rows.append(row)
    return table(heads, rows)


def quality_table(report: Mapping[str, Any]) -> str:
    """Returns the table of perplexities and first choices, with a row for every recipe."""
    heads = ["type"]
    for title in TITLES.values():
        heads += [f"perplexity, {title}", "same first choice"]
    rows = []
    for recipe in report["recipes"]:
        row = [recipe["type"].upper()]
        for method in TITLES:
            found = recipe["methods"][method]
            row += [f"{found['perplexity']:.4f}", f"{100 * found['top1_agreement']:.2f} %"]
        rows.append(row)
    return table(heads, rows)


def seconds_table(report: Mapping[str, Any]) -> str:
    """Returns the table of times, with a row for every recipe."""
    rows = [
        [recipe["type"].upper(), *(f"{recipe['methods'][m]['seconds']:.2f}" for m in TITLES)]
        for recipe in report["recipes"]
    ]
    return table(["type", *TITLES.values()], rows)


def _kl(found: Mapping[str, Any]) -> str:
    return f"{found['kl']:.3g} ± {found['kl_se']:.1g}"
