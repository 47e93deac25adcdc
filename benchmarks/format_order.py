"""Whether the formats come out in the order that one expects, larger files being better."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import comb
from statistics import NormalDist
from typing import Any

Report = Mapping[str, Any]  # guide_formats.json
Figures = Mapping[str, Any]  # of one format in it

REFERENCE = "f16"
# Every F16 number is an F32 number: what differs is rounding while computing.
SAME = ("f32", "f16")
SAME_KL = 1e-6
# How likely it may be that chance alone makes the page name any larger format as worse.
FALSE_ALARMS = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two formats by one measure.

    ``p``: how likely chance makes the larger one look so much worse; ``sentence`` says by how much.
    """

    p: float
    sentence: str


def surprises(report: Report) -> list[str]:
    """Returns a sentence for everything that isn't as expected; none means all is.

    Expected: F32 is as F16; the KL divergence of all others rises from each size to the next
    smaller one; and no format is worse than one of the next smaller size, in likelihood of the
    text or right answers, by more than chance explains. Formats read the same text and answer the
    same questions, so they are compared token by token and question by question.
    """
    compared = comparisons(report)
    # Bonferroni's correction: among hundreds of comparisons, many look unlikely by themselves.
    worse = [c.sentence for c in compared if c.p * len(compared) < FALSE_ALARMS]
    return [*_same(report["formats"]), *_rising(report), *worse]


def by_size(formats: Sequence[Figures]) -> list[Figures]:
    """Returns the formats, the largest first; those of one size as they came."""
    return sorted(formats, key=lambda format: format["bits_per_weight"], reverse=True)


def sizes(formats: Sequence[Figures]) -> list[list[str]]:
    """Returns the types of each size, the largest first."""
    groups = groupby(by_size(formats), key=lambda format: format["bits_per_weight"])
    return [[format["type"] for format in group] for _, group in groups]


def neighbours(formats: Sequence[Figures]) -> list[tuple[str, str]]:
    """Returns the types that are compared, (larger, smaller): each with all of the next size.

    Formats of one size have no order, nor have two that hold the same numbers.
    """
    return [
        (larger, smaller)
        for these, next_ones in pairwise(sizes(formats))
        for larger in these
        for smaller in next_ones
        if not {larger, smaller} <= {*SAME}
    ]


def n_right(format: Figures) -> tuple[int, int]:
    """Returns the right answers to all tasks together, and of how many."""
    answers = "".join(format["answers"].values())
    return answers.count("1"), len(answers)


def comparisons(report: Report) -> list[Comparison]:
    """Returns all neighbours by likelihood, by all answers and by those to each task."""
    return [c for pair in report["neighbours"] for c in _comparisons_of(pair, report)]


def chance_of_mean(mean: float, error: float) -> float:
    """Returns how likely a mean as large or larger is where the true one is 0; one-sided."""
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return NormalDist().cdf(-mean / error)


def chance_of_answers(n_for: int, n_against: int) -> float:
    """Returns how likely so many or more of the differing answers are against; one-sided.

    Without a difference each is for or against like a coin's sides: the exact form of the test of
    Q. McNemar, Psychometrika 12 (1947).
    """
    n = n_for + n_against
    return sum(comb(n, k) for k in range(n_against, n + 1)) / 2**n


def _same(formats: Sequence[Figures]) -> Iterator[str]:
    for format in formats:
        if format["type"] in SAME and abs(format["kl"]) > SAME_KL:
            yield (
                f"{format['type'].upper()} holds the same numbers as {REFERENCE.upper()}, and yet "
                f"its KL divergence is {format['kl']:.2g} (expected at most {SAME_KL:g})"
            )


def _rising(report: Report) -> Iterator[str]:
    """Yields where the KL divergence doesn't rise, be it within the error, which is told."""
    kl = {format["type"]: format["kl"] for format in report["formats"]}
    for pair in report["neighbours"]:
        larger, smaller = pair["larger"], pair["smaller"]
        if larger not in SAME and smaller not in SAME and not kl[larger] < kl[smaller]:
            yield (
                f"the KL divergence of {larger.upper()} ({kl[larger]:.2g}) is not below that of "
                f"the smaller {smaller.upper()} ({kl[smaller]:.2g}); the difference is "
                f"{pair['kl_difference']:.2g} ± {pair['kl_difference_se']:.1g}"
            )


def _comparisons_of(pair: Figures, report: Report) -> Iterator[Comparison]:
    larger, smaller = pair["larger"].upper(), pair["smaller"].upper()
    mean, error = pair["nll_difference"], pair["nll_difference_se"]
    yield Comparison(
        chance_of_mean(mean, error),
        f"the text is less likely with {larger} than with the smaller {smaller}, by {mean:.2g} ± "
        f"{error:.1g} nats per token",
    )
    answers = {format["type"]: format["answers"] for format in report["formats"]}
    better, worse = answers[pair["larger"]], answers[pair["smaller"]]
    tasks = [task["name"] for task in report["tasks"]]
    for names, where in [(tasks, "all tasks"), *(([name], f"the task {name}") for name in tasks)]:
        n_for = n_against = 0
        for name in names:
            for one, other in zip(better[name], worse[name], strict=True):
                n_for += one > other
                n_against += one < other
        yield Comparison(
            chance_of_answers(n_for, n_against),
            f"{larger} answers worse than the smaller {smaller} in {where}: {n_against} questions "
            f"only {smaller} gets right, {n_for} only {larger}",
        )
