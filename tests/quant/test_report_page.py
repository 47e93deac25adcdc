"""The page of a report: whole, well formed, and harmless whatever a file is called."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from math import inf

import pytest

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.report_page import page
from tests.quant.report_cases import some_errors, some_report, tensor

HOSTILE = "<script>alert(1)</script>\"' onload=x &amp; \x00\x1b[31m\u202e\udcff"


class Reader(HTMLParser):
    """Reads a page strictly: every element is closed where it must be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"th", "td"} & {*self.open}:
            self.rows[-1][-1] += data.strip()
        if "style" not in self.open:
            self.texts.append(data.strip())

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def test_a_row_for_every_tensor_the_worst_first() -> None:
    found = Reader(page(some_report()))
    head, *rows = found.rows
    assert head == [
        *("Tensor", "Shape", "Type", "Bits", "RMSE", "RMSE / RMS", "Cosine", "Largest error"),
        *("Histogram", "Worst block"),
    ]
    assert rows[0] == [
        *("blk.1.attn_q.weight", "64 × 256", "BF16 → Q4_0", "4.50", "0.0450", "9.00 %"),
        *("0.995950", "0.180", "", "18.0 % at (7, 32)"),
    ]
    assert [row[0] for row in rows[1:]] == [
        "blk.0.attn_q.weight",
        "blk.0.ffn_up.weight",
        "token_embd.weight",
        "blk.0.attn_norm.weight",
        "blk.1.ffn_up.weight",
    ]
    assert rows[-1] == ["blk.1.ffn_up.weight", "64 × 256", "BF16 → F32", "32.00", "exact"]
    assert rows[3][6] == "1 − 8e-06"
    # As long as the error: what is told by a length is told by a figure, too.
    shares = [cell["style"] for cell in found.tags("td") if "style" in cell]
    assert shares == ["--share: 100%", "--share: 78%", "--share: 67%", "--share: 5%"]


def test_the_summary() -> None:
    texts = Reader(page(some_report())).texts
    for expected in ("q4_0", "120.6 KiB", "14.33", "98,304", "1.2 s", "in", "out.gguf", "a note"):
        assert expected in texts


def test_plots_have_the_kinds_that_have_errors() -> None:
    found = Reader(page(some_report()))
    assert [svg["aria-label"] for svg in found.tags("svg")] == [
        "Relative RMSE of attn_q by layer",
        "Relative RMSE of ffn_up by layer",
        "Bytes by type",
        "1 − cosine of every tensor, by kind",
        *["Histogram of errors"] * 4,
    ]
    assert "blk.1.attn_q.weight: 9.00 %, Q4_0" in found.texts
    # The one that is exact among others that aren't is an open mark on the lower edge.
    (open_mark,) = (mark for mark in found.tags("circle") if mark["class"] == "dot open")
    assert open_mark["cy"] == "166"
    assert "blk.1.ffn_up.weight: 0 %, F32" in found.texts


def test_marks_lie_where_their_errors_are() -> None:
    found = Reader(page(some_report()))
    first, second = [mark for mark in found.tags("circle") if mark["r"] == "2.4"][:2]
    # 7 and 9 per cent between 5 and 10, the axis's ends, on a logarithmic scale.
    assert [first["cy"], second["cy"]] == ["100", "50.7"]
    assert [first["cx"], second["cx"]] == ["62", "322"]


def test_weighted_errors_have_a_column_where_there_are_any() -> None:
    weighted = tensor("blk.0.attn_q.weight", some_errors(0.07, weighted=0.031))
    head, *rows = Reader(page(some_report(weighted, tensor("a", some_errors(0.05))))).rows
    assert head[6] == "Weighted"
    assert [row[6] for row in rows] == ["3.10 %", ""]


def test_nothing_has_errors() -> None:
    found = Reader(page(some_report(tensor("blk.0.attn_q.weight", some_errors(0.0)))))
    assert "Every tensor of the layers is exact." in found.texts
    assert [svg["aria-label"] for svg in found.tags("svg")] == ["Bytes by type"]


def test_one_layer_and_a_type_that_is_all_but_exact() -> None:
    errors = some_errors(3e-9)
    assert errors.cosine == 1
    found = Reader(page(some_report(tensor("blk.0.attn_q.weight", errors, GgmlType.F16))))
    assert "2e-7 %" in found.texts
    assert len(found.tags("circle")) == 1  # and none for a cosine that is 1


def test_an_error_without_measure() -> None:
    errors = replace(some_errors(0.5), relative_rmse=inf, cosine=0.0)
    found = Reader(page(some_report(tensor("blk.0.attn_q.weight", errors))))
    assert found.rows[1][5] == "∞"


@pytest.mark.parametrize("layer", ["", "blk.0.", "blk.99999999999999999999."])
def test_names_are_text_and_nothing_else(layer: str) -> None:
    report = some_report(
        tensor(layer + HOSTILE, some_errors(0.1)), source=HOSTILE, output=f"{HOSTILE}.gguf"
    )
    text = page(replace(report, notes=(HOSTILE,)))
    assert "<script" not in text
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800-\udfff]", text)
    found = Reader(text)
    harmless = "<script>alert(1)</script>\"' onload=x &amp; \ufffd\ufffd[31m\ufffd\ufffd"
    assert found.rows[1][0] == layer + harmless
    assert harmless in found.texts
    assert not any("onload" in attributes for _, attributes in found.elements)


def test_nothing_comes_from_elsewhere() -> None:
    text = page(some_report())
    found = Reader(text)
    assert not {"script", "link", "img", "iframe", "use", "a"} & {tag for tag, _ in found.elements}
    assert "url(" not in text
    assert "http:" not in text
    assert "https:" not in text
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert {"http-equiv": "Content-Security-Policy", "content": policy} in found.tags("meta")
    assert "prefers-color-scheme: dark" in text
