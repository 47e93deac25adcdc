"""docs/screened-head.md, written from screened_head.json alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.page_parts import busy_text, origin_text, table, write_page

COMMAND = "python -m benchmarks.screened_head"
FIGURES = "screened_head.json"

_TOP = """\
The matrix that makes the logits, the head, has a row for each of 151,936 tokens: in the 0.5B, that
is 40 % of the bytes that are read for a token. But a sampler wants only the likeliest tokens, by
default the 20 with the largest logits. So where the head is Q8_0 or Q6_K and has 16,384 rows or
more, edgeqwen first reads only the highest 4 bits of its weights, and computes a bound for every
logit from them; then, exactly, those logits that may be among the largest
([the map of the house](architecture.md#load-bearing-ideas) tells how).

**This is statistics, not a proof.** A bound is 8 standard deviations above what the high bits say,
for errors as random as low bits look. The tokens found, their order and their logits are those of
the full head, bit for bit, unless the error of one of them exceeds its bound: for random errors,
one row in 10^15. In doubt, more is computed: for every token, the errors of some hundred rows are
looked at. If they are larger than expected, all bounds are widened; if they are more than twice as
large, or something isn't finite, or nothing stands out, all logits are computed.

`--full-head`, in Python `edgeqwen.load(..., full_head=True)`, turns the screen off. Without being
told, edgeqwen does without it for a top-k of 0 or more than 128, for penalties that make logits
larger, for the first token after a prompt, and wherever logits themselves are asked for
(`Model.logits`, perplexity, comparisons). Where it leaves so many rows that it doesn't pay, it
pauses for some tokens."""


def write_screened_page(report: Mapping[str, Any], path: Path) -> str:
    """Writes the page; returns its tables, for people who wait for them."""
    write_page(page(report), path)
    return "\n\n".join(
        (misses_text(report), share_table(report), head_table(report), push_table(report))
    )


def page(report: Mapping[str, Any]) -> str:
    """Returns docs/screened-head.md."""
    least = smallest(report)
    sections = [
        "# The screened head",
        _TOP,
        "## Does it miss a token?",
        misses_text(report),
        "Random heads: with normal weights, with channels of outliers, and with heavy tails. The "
        "hidden states are random or adversarial, and the 1, 20 or 40 largest logits are wanted, "
        "of every other state with penalties on 2 % of the tokens. A position counts as missed if "
        "one of these logits isn't there, or another one than the full product's. What is "
        "computed after the high bits is given as a share of the head.",
        f"Most positions are over heads of {_size(least)}, since two products of true size take "
        "long:",
        share_table(report),
        "Heads of true size, over all hidden states:",
        head_table(report),
        "Where 100 % were computed, errors were more than twice as large as expected: with heavy "
        "tails, many weights are so small beside the largest of their block that their low bits "
        "are all alike.",
        "## What it takes to hide a token",
        "Hidden states made from the weights to deceive the screen: a row that is near the 20 "
        "largest logits is pushed there by its own low bits, of which the high bits tell nothing. "
        f"At {_size(least)}, Q8_0:",
        push_table(report),
        "Nothing that a network computes knows the low bits of one row of its head; random states "
        "are off by 1 such deviation.",
    ]
    if report["steps"]:
        sections += ["## What a step saves", steps_text(report)]
    sections += ["## How it was made", origin_text(report, FIGURES)]
    return "\n\n".join(sections) + "\n"


def smallest(report: Mapping[str, Any]) -> tuple[int, int]:
    """Returns rows and columns of the smallest heads; the others are of true size."""
    return min((c["rows"], c["columns"]) for c in report["comparisons"])


def misses_text(report: Mapping[str, Any]) -> str:
    """Returns the sentence that all is about."""
    found = report["comparisons"]
    positions, n_missed, wrong = (
        sum(c[key] for c in found) for key in ("positions", "missed", "wrong")
    )
    least = smallest(report)
    true = sum(c["positions"] for c in found if (c["rows"], c["columns"]) != least)
    return (
        f"**Of {positions:,} positions, {n_missed:,} missed a token, and {wrong:,} got a logit "
        f"that isn't the full product's.** {true:,} of them are over heads of true size."
    )


def share_table(report: Mapping[str, Any]) -> str:
    """Returns a table with a row for each kind of hidden state, over the small heads."""
    least = smallest(report)
    small = [c for c in report["comparisons"] if (c["rows"], c["columns"]) == least]
    kinds = dict.fromkeys(c["hidden_states"] for c in small)
    rows = [[kind, *_summary([c for c in small if c["hidden_states"] == kind])] for kind in kinds]
    return table(("hidden states", "positions", "missed", "computed", "at most"), rows)


def head_table(report: Mapping[str, Any]) -> str:
    """Returns a table with a row for each head of true size."""
    least = smallest(report)
    heads: dict[str, list[Mapping[str, Any]]] = {}
    for c in report["comparisons"]:
        size = (c["rows"], c["columns"])
        if size != least:
            heads.setdefault(f"{c['head']}, {c['type']}, {_size(size)}", []).append(c)
    rows = [[name, *_summary(found)] for name, found in heads.items()]
    return table(("head", "positions", "missed", "computed", "at most"), rows)


def push_table(report: Mapping[str, Any]) -> str:
    """Returns a table with a row for each push."""
    rows = [
        [
            f"{push['deviations']} standard deviations",
            f"{push['positions']:,}",
            f"{push['among']:,}",
            f"{push['missed']:,}",
        ]
        for push in report["pushes"]
    ]
    return table(("pushed by", "positions", "the row is among the 20", "it is missed"), rows)


def steps_text(report: Mapping[str, Any]) -> str:
    """Returns what whole steps of a model take, one paragraph for each model."""
    paragraphs = []
    for steps in report["steps"]:
        full, screened = (median(steps["seconds"][key]) for key in ("full", "screened"))
        text = (
            f"{steps['model']}, {_threads(steps['n_threads'])}, random tokens: a step takes "
            f"{full * 1e3:.1f} ms with the full head and {screened * 1e3:.1f} ms with the screen, "
            f"{full / screened:.2f} times as fast; {100 * steps['mean_computed']:.1f} % of the "
            "logits are computed. Medians of steps that took turns."
        )
        paragraphs.append(f"{text} {busy_text(report['machine'])}".rstrip())
    return "\n\n".join(paragraphs)


def _summary(found: Sequence[Mapping[str, Any]]) -> list[str]:
    positions = sum(c["positions"] for c in found)
    mean = sum(c["positions"] * c["mean_computed"] for c in found) / positions
    most = max(c["largest_computed"] for c in found)
    n_missed = sum(c["missed"] for c in found)
    return [f"{positions:,}", f"{n_missed:,}", f"{100 * mean:.1f} %", f"{100 * most:.0f} %"]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]:,} × {size[1]:,}"


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"
