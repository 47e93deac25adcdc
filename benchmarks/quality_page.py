"""docs/quality.md and docs/quality.svg, written from guide_formats.json alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.format_order import (
    FALSE_ALARMS,
    REFERENCE,
    SAME,
    Figures,
    Report,
    by_size,
    comparisons,
    n_right,
    sizes,
    surprises,
)
from benchmarks.machine import BUSY
from benchmarks.page_parts import table
from benchmarks.quality_plot import write_plot
from benchmarks.task_scores import GROUPS, Score, goal_text, share, wilson_interval

COMMAND = "python -m benchmarks.guide_formats"


class OutdatedReportError(ValueError):
    """A guide_formats.json that an older version of the benchmark wrote."""


def write_page(report: Report, folder: Path) -> None:
    """Writes quality.md and quality.svg into a folder, which is made; raises as ``page`` does."""
    text = page(report)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.md").write_text(text, encoding="utf-8", newline="\n")
    write_plot(report["formats"], folder / "quality.svg")


def page(report: Report) -> str:
    """Returns docs/quality.md. Raises OutdatedReportError if the report can't give it."""
    check(report)
    formats = report["formats"]
    n_weights = report["model"]["n_weights"] / 1e6
    sections = (
        "# Quality, by task and by format",
        f"The built-in model, {n_weights:.1f} million weights, in formats that "
        "`edgeqwen quantize` writes. How to read it: the nearer a format's KL divergence is to 0 "
        "and the nearer its right answers are to those of F16, the less its smaller file costs.",
        "![KL divergence and right answers against bits per weight](quality.svg)",
        "## Formats",
        format_table(formats),
        order_text(report),
        *_about_formats(report),
        "## Tasks",
        f"Held-out examples, at most {report['options']['n']} of each task, answered greedily: "
        "right answers in per cent. An answer is right when it is word for word the expected one, "
        "spaces and punctuation included, the strictest reading there is. The interval is "
        "Wilson's, of 95 %, for F16. A goal is for the group, in bold, and for each of its tasks; "
        "it says so where F16 is below.",
        task_table(report),
        "## How it was made",
        f"    {report['command']}",
        _about_origin(report["machine"]),
    )
    return "\n\n".join(sections) + "\n"


def check(report: Report) -> None:
    """Raises OutdatedReportError unless all tasks of the page were measured, one by one."""
    if "neighbours" not in report:
        raise OutdatedReportError(
            "measured before formats were compared token by token; measure again"
        )
    measured = {task["name"] for task in report["tasks"]}
    if missing := [name for group in GROUPS for name in group.tasks if name not in measured]:
        raise OutdatedReportError(f"measured without task {', '.join(missing)}; measure again")


def format_table(formats: Sequence[Figures]) -> str:
    """Returns a table with a row for every format, the largest first."""
    heads = (
        "format", "MB", "bits per weight", "perplexity", "loss of likelihood", "KL from F16",
        "same first choice", "right answers", "prefill, × F16", "decode, × F16",
    )  # fmt: skip
    reference = _reference(formats)
    rows = [
        (
            f["type"].upper(),
            f"{f['bytes'] / 1e6:.2f}",
            f"{f['bits_per_weight']:.2f}",
            f"{f['perplexity']:.4f} ± {f['perplexity_se']:.4f}",
            f"{f['nll_change']:+.6f} ± {f['nll_change_se']:.6f}",
            f"{f['kl']:.2g} ± {f['kl_se']:.1g}",
            f"{100 * f['top1_agreement']:.2f} %",
            f"{100 * n_right(f)[0] / n_right(f)[1]:.1f} %",
            f"{speed_ratio(f, reference, 'prefill_tps'):.2f}",
            f"{speed_ratio(f, reference, 'decode_tps'):.2f}",
        )
        for f in by_size(formats)
    ]
    return table(heads, rows)


def speed_ratio(format: Figures, reference: Figures, name: str) -> float:
    """Returns the median of the rounds' ratios: what slows a whole round cancels."""
    rounds = zip(format[f"{name}_rounds"], reference[f"{name}_rounds"], strict=True)
    return median(rate / expected for rate, expected in rounds)


def task_table(report: Report) -> str:
    """Returns a table with a row for every group of tasks and for every task in it."""
    by_type = {f["type"]: _scores(report, f) for f in by_size(report["formats"])}
    heads = ("task", "examples", "goal", "F16, interval", *(type.upper() for type in by_type))
    rows = []
    for group in GROUPS:
        total = _row({type: group.total(s.values()) for type, s in by_type.items()}, group.goal)
        rows.append(tuple(f"**{cell}**" if cell else "" for cell in total))
        # A single task is its group.
        for name in group.tasks if len(group.tasks) > 1 else ():
            rows.append(_row({type: s[name] for type, s in by_type.items()}, group.goal))
    return table(heads, rows)


def order_text(report: Report) -> str:
    """Returns what the page says about the order of the formats."""
    how = (
        "All formats read the same text and answered the same questions, so they are compared "
        "token by token and question by question, each with those of the next smaller size: "
        f"{len(comparisons(report))} comparisons of likelihood, of all answers and of those to "
        "each task. A format counts as worse where, were there no difference at all, chance would "
        f"make any of these comparisons look so in fewer than {FALSE_ALARMS:.0%} of such pages."
    )
    found = surprises(report)
    if found:
        return "Not as expected:\n\n" + "\n".join(f"- {line}" for line in found) + f"\n\n{how}"
    formats = report["formats"]
    same = [f["type"].upper() for f in formats if f["type"] in SAME and f["type"] != REFERENCE]
    rising = [
        " or ".join(type.upper() for type in types)
        for types in sizes([f for f in formats if f["type"] not in SAME])
    ]
    return (
        "The formats order as expected: "
        + "".join(f"{name} is as {REFERENCE.upper()}, " for name in same)
        + f"the KL divergence rises with every step from {' to '.join(rising)}, and no format is "
        f"worse than one of the next smaller size. {how}"
    )


def _about_formats(report: Report) -> tuple[str, str]:
    about, options = report["machine"], report["options"]
    reference = _reference(report["formats"])
    return (
        f"Perplexity, likelihood, KL divergence and first choices are those on the "
        f"{report['n_tokens']} tokens of the held-out text that comes with edgeqwen; lower is "
        "better for the first three. The loss of likelihood is against F16, in nats per token, for "
        "the text's own tokens; the KL divergence, in nats, is over all tokens that could have "
        "come. Right answers are those to all tasks together. What stands after ± is the standard "
        "error. That of the perplexity is about the text, which is the same for all formats; to "
        "compare them, take that of the loss.",
        f"Speed is against F16 in the same round, the median of {options['rounds']} rounds of all "
        f"formats: prefill of {options['n_prompt']} tokens and decode of {options['n_generated']} "
        f"on {options['n_threads']} threads of this CPU: {about['cpu']}. F16 itself reads "
        f"{reference['prefill_tps']:.0f} tokens/s and decodes {reference['decode_tps']:.0f}. So "
        "small a model says little about the speed of large ones, which is bound by how fast "
        f"their weights are read. {busy_text(about)}".rstrip(),
    )


def busy_text(about: Mapping[str, Any]) -> str:
    """Returns a warning if the machine had other work as the measuring began, else nothing."""
    if about["load_average"] <= BUSY:
        return ""
    return (
        f"The machine was busy (load average {about['load_average']}): the figures of speed are "
        "not fit to quote; those of quality don't depend on it."
    )


def _about_origin(about: Mapping[str, Any]) -> str:
    names = ("python", "edgeqwen", "numpy", "numba")
    versions = [f"{name} {about['versions'][name]}" for name in names if name in about["versions"]]
    return (
        f"Commit {about['commit']}, {', '.join(versions)}; the figures are in "
        "[guide_formats.json](../benchmarks/results/guide_formats.json), and "
        "[the benchmarks' page](../benchmarks/README.md) tells more."
    )


def _reference(formats: Sequence[Figures]) -> Figures:
    return next(f for f in formats if f["type"] == REFERENCE)


def _scores(report: Report, format: Figures) -> dict[str, Score]:
    """Returns a format's scores by the name of the task."""
    answers = format["answers"]
    return {
        task["name"]: Score(task["name"], task["title"], answers[task["name"]])
        for task in report["tasks"]
    }


def _row(scores: Mapping[str, Score], goal: float | None) -> tuple[str, ...]:
    reference = scores[REFERENCE]
    low, high = wilson_interval(reference.right, reference.n)
    return (
        reference.title,
        str(reference.n),
        goal_text(reference, goal),
        f"{100 * low:.1f} to {100 * high:.1f}",
        *(f"{100 * share(score):.1f}" for score in scores.values()),
    )
