"""QuantizeReport: its sums, and its JSON."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant import HISTOGRAM_EDGES, QuantizeReport, TensorErrors, TensorReport, WorstBlock
from edgeqwen.quant.report import TypeTotal
from tests.quant.report_cases import some_errors, some_report, tensor


def from_json(content: dict[str, Any]) -> QuantizeReport:
    """Returns the report that a JSON object tells of."""

    def errors(fields: dict[str, Any]) -> TensorErrors:
        worst = WorstBlock(**fields["worst"]) if fields["worst"] else None
        return TensorErrors(**{**fields, "worst": worst, "histogram": tuple(fields["histogram"])})

    return QuantizeReport(
        source=Path(content["source"]),
        output=Path(content["output"]),
        type=content["type"],
        n_bytes=content["n_bytes"],
        seconds=content["seconds"],
        notes=tuple(content["notes"]),
        tensors=tuple(
            TensorReport(
                t["name"],
                tuple(t["shape"]),
                GgmlType[t["source_type"]],
                GgmlType[t["type"]],
                t["n_bytes"],
                errors(t["errors"]) if t["errors"] else None,
            )
            for t in content["tensors"]
        ),
    )


def test_json_tells_everything() -> None:
    unmeasured = tensor("blk.2.attn_q.weight", None)
    report = some_report(
        unmeasured,
        tensor("a", some_errors(1 / 3, weighted=0.1)),
        tensor("b", replace(some_errors(0.0), rms=None)),
    )
    content = json.loads(report.to_json())
    assert from_json(content) == report
    assert content["n_weights"] == 3 * 64 * 256
    assert content["bits_per_weight"] == report.bits_per_weight == 4.5
    assert content["types"] == [{**asdict(report.by_type[0]), "type": "Q4_0"}]
    assert tuple(content["histogram_edges"]) == HISTOGRAM_EDGES
    assert content["tensors"][1]["bits_per_weight"] == 4.5
    assert content["tensors"][1]["errors"]["relative_rmse"] == 1 / 3
    assert content["tensors"][1]["errors"]["worst"]["column"] == 32


def test_json_has_no_infinities() -> None:
    errors = replace(some_errors(0.1), relative_rmse=math.inf, worst=WorstBlock(0, 0, 1, math.inf))
    text = some_report(tensor("a", errors)).to_json()
    assert "Infinity" not in text
    found = json.loads(text)["tensors"][0]["errors"]
    assert (found["relative_rmse"], found["worst"]["relative_rmse"]) == (None, None)


@pytest.mark.parametrize("name", ["\udcff", 'a"b\\', "\x00\n"])
def test_json_holds_any_name(name: str) -> None:
    report = some_report(tensor(name, some_errors(0.1)), source=f"in{name}")
    text = report.to_json()
    assert text.isascii()
    assert from_json(json.loads(text)) == report


def test_types_are_summed_the_largest_first() -> None:
    assert some_report().by_type == (
        TypeTotal(GgmlType.F32, 2, 2 * 64 * 256, 2 * 64 * 256 * 4),
        TypeTotal(GgmlType.Q4_0, 3, 3 * 64 * 256, 3 * 64 * 256 * 18 // 32),
        TypeTotal(GgmlType.Q8_0, 1, 64 * 256, 64 * 256 * 34 // 32),
    )
