"""Axes that hold their values, and figures in few characters."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeqwen.quant.report_axes import LogAxis, percent, round_percent, size


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.061, 0.098], [0.05, 0.1]),
        ([0.0041, 0.0046], [0.002, 0.005]),
        ([0.05], [0.05, 0.1]),
        ([0.017, 0.07], [0.01, 0.02, 0.05, 0.1]),
        ([1e-4, 0.07], [1e-4, 1e-3, 1e-2, 1e-1]),
        ([1e-12, 1], [1e-12, 1e-9, 1e-6, 1e-3, 1]),
    ],
)
def test_axes(values: list[float], ticks: list[float]) -> None:
    axis = LogAxis.around(values)
    assert axis.ticks == ticks
    assert axis.place(axis.start) == 0
    assert axis.place(axis.stop) == 1
    assert axis.place(math.sqrt(axis.start * axis.stop)) == pytest.approx(0.5)


@given(st.lists(st.floats(1e-20, 1e6), min_size=1))
def test_every_value_has_its_place(values: list[float]) -> None:
    axis = LogAxis.around(values)
    assert all(0 <= axis.place(value) <= 1 for value in values)
    assert 2 <= len(axis.ticks) <= 6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0716, "7.16 %"),
        (0.07, "7.00 %"),
        (1.234, "123 %"),
        (4.18e-9, "4.18e-07 %"),
        (0.0, "0 %"),
        (math.inf, "∞"),
    ],
)
def test_per_cent(value: float, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.05, "5 %"), (1.0, "100 %"), (1e-5, "0.001 %"), (5e-9, "5e-7 %")]
)
def test_round_per_cent(value: float, text: str) -> None:
    assert round_percent(value) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(1023, "1023 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes(n_bytes: int, text: str) -> None:
    assert size(n_bytes) == text
