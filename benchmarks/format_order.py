"""Whether the formats come out in the order that one expects, larger files being better."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

Figures = Mapping[str, Any]  # of one format, as in guide_formats.json

REFERENCE = "f16"
# Every F16 number is an F32 number: what differs is rounding while computing.
SAME = ("f32", "f16")
SAME_KL = 1e-6
# Each of them loses clearly more than the one before.
RISING = ("bf16", "q8_0", "q4_0")
# A difference counts when it is larger than so many standard errors.
_N_ERRORS = 2.0


def surprises(formats: Sequence[Figures]) -> list[str]:
    """Returns a sentence for everything that isn't as expected; none means all is.

    Expected: F32 is as F16; KL divergence rises from BF16 to Q8_0 to Q4_0; and of any two formats
    the one with more bits per weight isn't worse, in KL divergence, likelihood of the text or
    right answers, by more than twice the standard error of the difference.
    """
    return [*_same(formats), *_rising(formats), *_larger_is_worse(formats)]


def name(format: Figures) -> str:
    """Returns the format's name as people write it."""
    return str(format["type"]).upper()


def n_right(format: Figures) -> tuple[int, int]:
    """Returns the right answers to all tasks together, and of how many."""
    tasks = format["tasks"]
    return sum(task["right"] for task in tasks), sum(task["n"] for task in tasks)


def _same(formats: Sequence[Figures]) -> Iterator[str]:
    for format in formats:
        if format["type"] in SAME and abs(format["kl"]) > SAME_KL:
            yield (
                f"{name(format)} holds the same numbers as {REFERENCE.upper()}, and yet its KL "
                f"divergence is {format['kl']:.2g} (expected at most {SAME_KL:g})"
            )


def _rising(formats: Sequence[Figures]) -> Iterator[str]:
    by_type = {format["type"]: format for format in formats}
    present = [by_type[type] for type in RISING if type in by_type]
    for better, worse in pairwise(present):
        if not better["kl"] < worse["kl"]:
            yield (
                f"the KL divergence of {name(better)} ({better['kl']:.2g}) is not below that of "
                f"{name(worse)} ({worse['kl']:.2g})"
            )


def _larger_is_worse(formats: Sequence[Figures]) -> Iterator[str]:
    measures: tuple[tuple[str, Callable[[Figures], tuple[float, float]]], ...] = (
        ("KL divergence", lambda format: (format["kl"], format["kl_se"])),
        ("loss of likelihood", lambda format: (format["nll_change"], format["nll_change_se"])),
        ("share of wrong answers", _share_of_wrong),
    )
    by_size = sorted(formats, key=lambda format: format["bits_per_weight"], reverse=True)
    for larger, smaller in combinations(by_size, 2):
        # Two files of one size have no order, nor have two with the same numbers.
        same = larger["type"] in SAME and smaller["type"] in SAME
        if same or larger["bits_per_weight"] == smaller["bits_per_weight"]:
            continue
        for what, measure in measures:
            (a, a_se), (b, b_se) = measure(larger), measure(smaller)
            if a - b > _N_ERRORS * math.hypot(a_se, b_se) + SAME_KL:
                yield (
                    f"the {what} of {name(larger)} ({a:.2g}) is above that of the smaller "
                    f"{name(smaller)} ({b:.2g})"
                )


def _share_of_wrong(format: Figures) -> tuple[float, float]:
    right, n = n_right(format)
    wrong = 1 - right / n
    return wrong, math.sqrt(wrong * (1 - wrong) / n)
