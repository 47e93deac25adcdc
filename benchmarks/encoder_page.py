"""docs/encoders.md, written from encoder_errors.json alone."""

from collections.abc import Mapping
from math import log10
from pathlib import Path
from typing import Any

from benchmarks.page_parts import busy_text, origin_text, table, write_page

COMMAND = "python -m benchmarks.encoder_errors"
FIGURES = "encoder_errors.json"


def write_encoder_page(report: Mapping[str, Any], path: Path) -> str:
    """Writes the page; returns its tables, for people who wait for them."""
    write_page(page(report), path)
    return "\n\n".join(
        (error_table(report, "plain"), error_table(report, "weighted"), speed_table(report))
    )


def page(report: Mapping[str, Any]) -> str:
    """Returns docs/encoders.md."""
    n = {name: f"{count / 1e6:.1f}" for name, count in report["n_weights"].items()}
    n_tokens = report["options"]["n_tokens"]
    sections = [
        "# Encoders, by type",
        "How near the blocks that `edgeqwen quantize` writes are to the weights, beside those of "
        "ggml's own encoders, which llama-quantize uses. Both are given the same weights and read "
        "back by the same code. An error is the mean square of the differences over that of the "
        "weights, in decibels (−20 dB is a hundredth), and the ratio edgeqwen's error over ggml's: "
        "below 1, edgeqwen's is the smaller.",
        f"Normal: {n['normal']} million weights of a normal distribution. Heavy-tailed: as many of "
        "Student's t with 4 degrees of freedom, whose outliers are as those of a model's worst "
        f"matrices. Trained: the built-in model's matrices, {n['trained']} million weights.",
        "## Errors",
        error_table(report, "plain"),
        "## Errors with an importance matrix",
        "Both encoders are told how much each column matters, and errors are weighed by it. For "
        f"trained weights, that is an importance matrix collected from {n_tokens} tokens of the "
        "training's kind; for random ones, log-normal numbers (sigma 1).",
        error_table(report, "weighted"),
        "## Speed",
        "Millions of weights encoded in a second by one thread, and the ratio edgeqwen's over "
        f"ggml's: above 1, edgeqwen is the faster. Medians of {report['options']['rounds']} rounds "
        f"in which they take turns. {busy_text(report['machine'])}".rstrip(),
        speed_table(report),
        "## How it was made",
        origin_text(report, FIGURES),
    ]
    return "\n\n".join(sections) + "\n"


def error_table(report: Mapping[str, Any], how: str) -> str:
    """Returns the table of errors, ``plain`` or ``weighted``, with a row for every type."""
    kinds = list(report["n_weights"])
    heads = ["type"]
    for kind in kinds:
        heads += [f"{kind}, dB", "ratio"]
    rows = []
    for figures in report["types"]:
        row = [figures["type"]]
        for kind in kinds:
            found = figures["errors"][kind][how]
            row += [decibels(found["edgeqwen"]), f"{found['ratio']:.3f}"]
        rows.append(row)
    return table(heads, rows)


def speed_table(report: Mapping[str, Any]) -> str:
    """Returns the table of speeds with a row for every type."""
    heads = ["type", "edgeqwen", "ggml", "ratio"]
    heads += [f"{head}, weighted" for head in heads[1:]]
    rows = []
    for figures in report["types"]:
        row = [figures["type"]]
        for how in ("plain", "weighted"):
            found = figures["speed"][how]
            row += [f"{found[name] / 1e6:.1f}" for name in ("edgeqwen", "ggml")]
            row.append(f"{found['ratio']:.2f}")
        rows.append(row)
    return table(heads, rows)


def decibels(ratio: float) -> str:
    """Returns ten times the logarithm, with a proper minus sign; nothing is "none"."""
    return "none" if ratio == 0 else f"{10 * log10(ratio):.2f}".replace("-", "−")
