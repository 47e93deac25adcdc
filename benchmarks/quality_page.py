"""docs/quality.md and docs/quality.svg, written from guide_formats.json alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.format_order import REFERENCE, Figures, n_right, surprises
from benchmarks.quality_plot import write_plot
from benchmarks.task_scores import GROUPS, Score, share, wilson_interval

Report = Mapping[str, Any]

COMMAND = "python -m benchmarks.guide_formats"


def write_page(report: Report, folder: Path) -> None:
    """Writes quality.md and quality.svg into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.md").write_text(page(report), encoding="utf-8", newline="\n")
    write_plot(report["formats"], folder / "quality.svg")


def page(report: Report) -> str:
    """Returns docs/quality.md."""
    formats = report["formats"]
    n_weights = report["model"]["n_weights"] / 1e6
    sections = (
        "# Quality, by task and by format",
        f"The built-in model, {n_weights:.1f} million weights, in every format that "
        "`edgeqwen quantize` writes. How to read it: the nearer a format's KL divergence is to 0 "
        "and the nearer its right answers are to those of F16, the less its smaller file costs.",
        "![KL divergence and right answers against bits per weight](quality.svg)",
        "## Formats",
        format_table(formats),
        order_text(formats),
        *_about_formats(report),
        "## Tasks",
        f"Held-out examples, at most {report['options']['n']} of each task, answered greedily: "
        "right answers in per cent. An answer is right when it is word for word the expected one, "
        "spaces and punctuation included, the strictest reading there is. The interval is "
        "Wilson's, of 95 %, for F16.",
        task_table(formats),
        "## How it was made",
        f"    {COMMAND}",
        _about_origin(report["machine"]),
    )
    return "\n\n".join(sections) + "\n"


def format_table(formats: Sequence[Figures]) -> str:
    """Returns a table with a row for every format, the largest first."""
    heads = (
        "format", "MB", "bits per weight", "perplexity", "loss of likelihood", "KL from F16",
        "same first choice", "right answers", "prefill, tokens/s", "decode, tokens/s",
    )  # fmt: skip
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
            f"{f['prefill_tps']:.0f}",
            f"{f['decode_tps']:.0f}",
        )
        for f in sorted(formats, key=lambda f: f["bits_per_weight"], reverse=True)
    ]
    return _table(heads, rows)


def task_table(formats: Sequence[Figures]) -> str:
    """Returns a table with a row for every group of tasks and for every task in it."""
    by_type = {f["type"]: [Score(**task) for task in f["tasks"]] for f in formats}
    heads = ("task", "examples", *(type.upper() for type in by_type), "F16, interval", "goal")
    rows = []
    for group in GROUPS:
        goal = f"{100 * group.goal:.0f} %" if group.goal is not None else ""
        totals = {type: group.total(scores) for type, scores in by_type.items()}
        rows.append(tuple(f"**{cell}**" if cell else "" for cell in (*_row(totals), goal)))
        for name in group.tasks if len(group.tasks) > 1 else ():
            rows.append(
                (
                    *_row(
                        {
                            type: next(score for score in scores if score.name == name)
                            for type, scores in by_type.items()
                        }
                    ),
                    "",
                )
            )
    return _table(heads, rows)


def order_text(formats: Sequence[Figures]) -> str:
    """Returns what the page says about the order of the formats."""
    found = surprises(formats)
    if not found:
        return (
            "The formats order as expected: F32 is as F16, the KL divergence rises from BF16 to "
            "Q8_0 to Q4_0, and no format is worse than a smaller one by more than twice the "
            "standard error."
        )
    return "Not as expected:\n\n" + "\n".join(f"- {sentence}" for sentence in found)


def _about_formats(report: Report) -> tuple[str, str]:
    about, options = report["machine"], report["options"]
    return (
        f"Perplexity, likelihood, KL divergence and first choices are those on the "
        f"{options['n_tokens']} tokens of the held-out text that comes with edgeqwen; lower is "
        "better for the first three. The loss of likelihood is against F16, in nats per token, for "
        "the text's own tokens; the KL divergence, in nats, is over all tokens that could have "
        "come. Right answers are those to all tasks together. What stands after ± is the standard "
        "error. That of the perplexity is about the text, which is the same for all formats; to "
        "compare them, take that of the loss.",
        f"Speed is in tokens/s, the median of {options['rounds']} rounds: prefill of "
        f"{options['n_prompt']} tokens and decode of {options['n_generated']} on "
        f"{options['n_threads']} threads of this CPU: {about['cpu']}. So small a model says little "
        "about the speed of large ones, which is bound by how fast their weights are read.",
    )


def _about_origin(about: Mapping[str, Any]) -> str:
    names = ("python", "edgeqwen", "numpy", "numba")
    versions = [f"{name} {about['versions'][name]}" for name in names if name in about["versions"]]
    return (
        f"Commit {about['commit']}, {', '.join(versions)}; the figures are in "
        "[guide_formats.json](../benchmarks/results/guide_formats.json), and "
        "[the benchmarks' page](../benchmarks/README.md) tells more."
    )


def _row(scores: Mapping[str, Score]) -> tuple[str, ...]:
    reference = scores[REFERENCE]
    low, high = wilson_interval(reference.right, reference.n)
    return (
        reference.title,
        str(reference.n),
        *(f"{100 * share(score):.1f}" for score in scores.values()),
        f"{100 * low:.1f} to {100 * high:.1f}",
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ("---", *("---:",) * (len(heads) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
