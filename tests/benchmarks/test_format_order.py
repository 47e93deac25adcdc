"""The expected order of the formats, and what is said where it doesn't hold."""

from typing import Any

import pytest

from benchmarks.format_order import (
    chance_of_answers,
    chance_of_mean,
    comparisons,
    n_right,
    neighbours,
    sizes,
    surprises,
)
from edgeqwen.quant import TYPES
from tests.benchmarks.quality_report import answers, formats, report


def changed(type: str, **figures: Any) -> dict[str, Any]:
    """Returns a report that is in order but for one format."""
    return report([f | figures if f["type"] == type else f for f in formats()])


def changed_pair(larger: str, smaller: str, **figures: float) -> dict[str, Any]:
    """Returns a report that is in order but for how two formats differ."""
    found = report()
    (pair,) = (p for p in found["neighbours"] if (p["larger"], p["smaller"]) == (larger, smaller))
    pair |= figures
    return found


def sized(**bits: float) -> list[dict[str, Any]]:
    return [{"type": type, "bits_per_weight": n} for type, n in bits.items()]


def test_the_samples_are_formats_and_in_order() -> None:
    assert {f["type"] for f in formats()} <= set(TYPES)
    assert surprises(report()) == []


def test_f32_must_be_as_f16() -> None:
    assert surprises(changed("f32", kl=1e-5)) == [
        "F32 holds the same numbers as F16, and yet its KL divergence is 1e-05 (expected at most "
        "1e-06)"
    ]


def test_kl_must_rise_even_within_the_error() -> None:
    assert surprises(changed("q8_0", kl=1e-5, kl_se=1e-3)) == [
        "the KL divergence of BF16 (2e-05) is not below that of the smaller Q8_0 (1e-05); the "
        "difference is 1e-05 ± 0.0001"
    ]


def test_kl_must_rise_among_types_that_nobody_has_named() -> None:
    def figures(type: str, bits: float, kl: float) -> dict[str, Any]:
        return formats()[-1] | {"type": type, "bits_per_weight": bits, "kl": kl}

    others = [figures("new", 4.5, 0.03), figures("newer", 4.5, 0.01), figures("last", 2.0, 0.5)]
    assert [line.partition(";")[0] for line in surprises(report([*formats(), *others]))] == [
        "the KL divergence of Q4_0 (0.02) is not below that of the smaller NEWER (0.01)"
    ]


def test_neighbours_are_all_of_the_next_size() -> None:
    found = sized(q4_0=4.5, f32=32, a=5.0, f16=16, bf16=16, b=4.5)
    assert sizes(found) == [["f32"], ["f16", "bf16"], ["a"], ["q4_0", "b"]]
    assert neighbours(found) == [
        ("f32", "bf16"), ("f16", "a"), ("bf16", "a"), ("a", "q4_0"), ("a", "b"),
    ]  # fmt: skip


def test_a_larger_file_must_not_predict_worse() -> None:
    assert surprises(
        changed_pair("q8_0", "q4_0", nll_difference=0.04, nll_difference_se=0.001)
    ) == [
        "the text is less likely with Q8_0 than with the smaller Q4_0, by 0.04 ± 0.001 nats per "
        "token"
    ]


def test_what_is_unlikely_once_is_likely_among_many() -> None:
    n = len(comparisons(report()))
    assert n == 4 * (1 + 1 + len(report()["tasks"]))
    # One-sided, 0.05 of n = 72 comparisons: 3.2 standard errors.
    assert n == 72
    for errors, n_surprises in ((2.5, 0), (3.1, 0), (3.3, 1)):
        pair = {"nll_difference": errors * 1e-3, "nll_difference_se": 1e-3}
        assert len(surprises(changed_pair("q8_0", "q4_0", **pair))) == n_surprises


def test_answers_are_compared_question_by_question() -> None:
    # Both get 80 right of each task, and not the same ones: no difference.
    others = {name: marks[::-1] for name, marks in answers(80).items()}
    assert surprises(changed("q8_0", answers=others)) == []
    # One question of each of 16 tasks: of 1600, that is within the error of either share, and yet
    # chance hardly turns 16 answers the same way.
    fewer = answers(80) | dict.fromkeys(answers(80), "0" + "1" * 79 + "0" * 20)
    assert surprises(changed("q8_0", answers=fewer)) == [
        "Q8_0 answers worse than the smaller Q4_0 in all tasks: 16 questions only Q4_0 gets right, "
        "0 only Q8_0"
    ]


def test_each_task_is_compared() -> None:
    # What is lost in one task is won in another.
    marks = answers(80) | {"sort": answers(60)["sort"], "sums": answers(100)["sums"]}
    assert surprises(changed("q8_0", answers=marks)) == [
        "Q8_0 answers worse than the smaller Q4_0 in the task sort: 20 questions only Q4_0 gets "
        "right, 0 only Q8_0"
    ]


def test_chance_of_answers_by_hand() -> None:
    assert chance_of_answers(0, 0) == 1
    assert chance_of_answers(0, 3) == 1 / 8
    assert chance_of_answers(1, 2) == 4 / 8
    assert chance_of_answers(3, 0) == 1
    assert 0 <= chance_of_answers(1000, 3000) < 1e-100


def test_chance_of_a_mean() -> None:
    assert chance_of_mean(1.959964, 1.0) == pytest.approx(0.025)
    assert chance_of_mean(-1.959964, 1.0) == pytest.approx(0.975)
    # Two files that predict the same, bit by bit.
    assert (chance_of_mean(0.0, 0.0), chance_of_mean(1e-3, 0.0)) == (1.0, 0.0)


def test_right_answers_to_all_tasks() -> None:
    assert n_right({"answers": {"a": "10", "b": "11010"}}) == (4, 7)
