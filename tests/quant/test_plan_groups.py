"""Layers that are treated alike share a line, whose name says which layers these are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant import TensorReport, group_layers
from edgeqwen.quant.plan_groups import number_ranges
from tests.quant.recipe_cases import MODELS, our_types


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([4], "4"),
        ([0, 1], "0-1"),
        ([3, 1, 2], "1-3"),
        ([0, 2, 4], "0,2,4"),
        ([0, 2, 4, 6], "0,2..6"),
        ([0, 1, 5, 6, 10, 11, 15, 16], "0-1,5-6..15-16"),
        ([0, 1, 2, 5, 8, 11, 14, 15], "0-2,5,8,11,14-15"),
        ([0, 2, 4, 6, 9, 12, 15, 18], "0,2..6,9,12..18"),
        ([*range(80)], "0-79"),
    ],
)
def test_number_ranges(numbers: list[int], text: str) -> None:
    assert number_ranges(numbers) == text


def numbers_in(text: str) -> list[int]:
    """Reads what number_ranges writes."""
    found: list[list[int]] = []
    for item in text.split(","):
        runs = [[int(end) for end in run.split("-")] for run in item.split("..")]
        if len(runs) == 2:
            (start, *_), (last, *_) = runs
            step = start - found[-1][0]
            width = found[-1][-1] - found[-1][0]
            found += [[i, i + width] for i in range(start, last, step)]
        found.append(runs[-1])
    return [number for run in found for number in range(run[0], run[-1] + 1)]


@given(st.sets(st.integers(0, 60), min_size=1))
def test_every_number_is_told(numbers: set[int]) -> None:
    assert numbers_in(number_ranges(numbers)) == sorted(numbers)


def test_72b() -> None:
    model = MODELS["72B"]
    types = our_types("q4_k_m", model)
    tensors = [
        TensorReport(name, shape, GgmlType.BF16, GgmlType[types[name]], 10)
        for name, shape in model.expected_tensors().items()
    ]
    groups = group_layers(tensors)
    assert sum(group.n_tensors for group in groups) == len(tensors)
    assert [group.name for group in groups] == [
        "token_embd.weight",
        "blk.0-79.attn_norm.weight",
        "blk.0-79.attn_q.weight",
        "blk.0-79.attn_q.bias",
        "blk.0-79.attn_k.weight",
        "blk.0-79.attn_k.bias",
        "blk.0-9,12,15..66,69-79.attn_v.weight",
        "blk.10-11,13-14..67-68.attn_v.weight",
        "blk.0-79.attn_v.bias",
        "blk.0-79.attn_output.weight",
        "blk.0-79.ffn_norm.weight",
        "blk.0-79.ffn_gate.weight",
        "blk.0-79.ffn_up.weight",
        "blk.0-9,12,15..66,69-79.ffn_down.weight",
        "blk.10-11,13-14..67-68.ffn_down.weight",
        "output_norm.weight",
        "output.weight",
    ]
    more = groups[6]
    assert (more.n_tensors, more.n_bytes, more.type) == (40, 400, GgmlType.Q6_K)
    assert (more.shape, more.source_type) == ((1024, 8192), GgmlType.BF16)


def test_other_shapes_and_sources_stand_apart() -> None:
    def tensor(layer: int, columns: int, source: GgmlType) -> TensorReport:
        return TensorReport(f"blk.{layer}.x", (2, columns), source, GgmlType.F16, columns * 4)

    groups = group_layers(
        [
            tensor(0, 32, GgmlType.F32),
            tensor(1, 64, GgmlType.F32),
            tensor(2, 32, GgmlType.BF16),
            tensor(3, 32, GgmlType.F32),
        ]
    )
    assert [group.name for group in groups] == ["blk.0,3.x", "blk.1.x", "blk.2.x"]
    assert [group.n_bytes for group in groups] == [256, 256, 128]
