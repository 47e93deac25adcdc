"""The expected order of the formats, and what is said where it doesn't hold."""

from typing import Any

from benchmarks.format_order import n_right, surprises
from edgeqwen.quant import TYPES
from tests.benchmarks.quality_report import formats


def changed(type: str, **figures: Any) -> list[dict[str, Any]]:
    """Returns the figures in order but for one format."""
    return [f | figures if f["type"] == type else f for f in formats()]


def test_the_samples_are_all_formats_and_in_order() -> None:
    assert {f["type"] for f in formats()} == set(TYPES)
    assert surprises(formats()) == []


def test_f32_must_be_as_f16() -> None:
    assert surprises(changed("f32", kl=1e-5, kl_se=1e-5)) == [
        "F32 holds the same numbers as F16, and yet its KL divergence is 1e-05 (expected at most "
        "1e-06)"
    ]


def test_kl_must_rise_even_within_the_error() -> None:
    assert surprises(changed("q8_0", kl=1e-5, kl_se=1e-3)) == [
        "the KL divergence of BF16 (2e-05) is not below that of Q8_0 (1e-05)"
    ]


def test_a_larger_file_must_not_be_worse() -> None:
    found = surprises(changed("q8_0", nll_change=0.05, nll_change_se=0.001))
    assert found == [
        "the loss of likelihood of Q8_0 (0.05) is above that of the smaller Q4_0 (0.01)"
    ]
    assert surprises(changed("q8_0", nll_change=0.011, nll_change_se=0.001)) == []


def test_a_larger_file_must_not_answer_worse() -> None:
    tasks = [task | {"right": 60} for task in formats()[0]["tasks"]]
    assert surprises(changed("q8_0", tasks=tasks)) == [
        "the share of wrong answers of Q8_0 (0.4) is above that of the smaller Q4_0 (0.2)"
    ]


def test_formats_of_one_size_have_no_order() -> None:
    assert surprises(changed("f16", nll_change=0.004, nll_change_se=1e-5)) == [
        "the loss of likelihood of F16 (0.004) is above that of the smaller Q8_0 (0.0002)"
    ]


def test_right_answers_to_all_tasks() -> None:
    assert n_right({"tasks": [{"right": 1, "n": 2}, {"right": 3, "n": 5}]}) == (4, 7)
