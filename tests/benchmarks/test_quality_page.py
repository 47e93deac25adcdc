"""docs/quality.md and its plot: they say what the JSON says, and nothing else."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import guide_formats
from benchmarks.quality_page import COMMAND, page, write_page
from tests.benchmarks.quality_report import report


def rows(text: str, first: str) -> list[list[str]]:
    """Returns the cells of the table lines whose first cell begins so."""
    found = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def test_the_table_of_formats() -> None:
    assert rows(page(report()), "Q4_0") == [
        ["Q4_0", "3.31", "5.30", "2.5100 ± 0.0300", "+0.010000 ± 0.002500", "0.02 ± 0.001",
         "98.00 %", "80.0 %", "5000", "700"]
    ]  # fmt: skip


def test_the_table_of_tasks() -> None:
    text = page(report())
    shares = ["96.0", "96.0", "96.0", "95.0", "80.0", "90.2 to 98.4"]
    assert rows(text, "Title of sort") == [["Title of sort", "100", *shares, ""]]
    (total,) = rows(text, "**Other tasks with one right answer**")
    assert total[1:4] == ["**1000**", "**96.0**", "**96.0**"]
    assert total[-1] == "**90 %**"
    tables = text.split("\n\n")
    for table in (part for part in tables if part.startswith("| ")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_page_says_whether_the_order_holds() -> None:
    assert "The formats order as expected" in page(report())
    wrong = report()
    wrong["formats"][3]["kl"] = 0.5
    text = page(wrong)
    assert "The formats order as expected" not in text
    assert "- the KL divergence of Q8_0 (0.5) is not below that of Q4_0 (0.02)" in text


def test_the_page_says_how_it_was_made() -> None:
    text = page(report())
    assert f"    {COMMAND}\n" in text
    assert "Commit 0123456789ab, python 3.11.9, edgeqwen 0.1.0, numpy 2.0.0;" in text


def test_the_page_and_the_plot_from_json_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="draws the plot (the plots extra)")
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps(report()), "utf-8")
    folder = tmp_path / "docs"
    guide_formats.main(["--from-json", "--json", str(figures), "--docs", str(folder)])
    assert (folder / "quality.md").read_text("utf-8") == page(report())
    assert "The formats order as expected." in capsys.readouterr().out
    texts = {element.text for element in ElementTree.parse(folder / "quality.svg").iter()}
    assert {"F32: none", "F16: none", "BF16", "Q8_0", "Q4_0", "bits per weight"} <= texts


def test_the_plot_is_always_the_same(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the plot (the plots extra)")
    write_page(report(), tmp_path / "a")
    write_page(report(), tmp_path / "b")
    plot = (tmp_path / "a" / "quality.svg").read_bytes()
    assert plot == (tmp_path / "b" / "quality.svg").read_bytes()
    assert b"<dc:date>" not in plot


def test_the_committed_page_is_what_its_json_gives() -> None:
    if not guide_formats.RESULTS.is_file():
        pytest.skip("benchmarks/results/guide_formats.json isn't there yet")
    found = json.loads(guide_formats.RESULTS.read_text("utf-8"))
    written = (guide_formats.DOCS / "quality.md").read_text("utf-8")
    assert written == page(found), f"run {COMMAND} --from-json"
    assert (guide_formats.DOCS / "quality.svg").is_file()
