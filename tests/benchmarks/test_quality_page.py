"""docs/quality.md and its plot: they say what the JSON says, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import guide_formats
from benchmarks.machine import BUSY
from benchmarks.quality_page import COMMAND, page, write_page
from benchmarks.quality_plot import name_places
from tests.benchmarks.quality_report import answers, report


def rows(text: str, first: str) -> list[list[str]]:
    """Returns the cells of the table lines whose first cell begins so."""
    found = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def test_the_table_of_formats() -> None:
    assert rows(page(report()), "Q4_0") == [
        ["Q4_0", "3.31", "5.30", "2.5100 ± 0.0300", "+0.010000 ± 0.002500", "0.02 ± 0.001",
         "98.00 %", "80.0 %", "2.00", "2.00"]
    ]  # fmt: skip


def test_speed_is_the_median_of_the_rounds_ratios() -> None:
    found = report()
    # In the samples each round has its own load, which must cancel.
    found["formats"][4]["decode_tps_rounds"] = [700.0 * 1.9, 350.0 * 1.7, 70.0 * 5]
    assert rows(page(found), "Q4_0")[0][-2:] == ["2.00", "1.90"]
    assert "F16 itself reads 2500 tokens/s and decodes 350." in page(found)


def test_the_table_of_tasks() -> None:
    text = page(report())
    assert rows(text, "task")[0][4:] == ["F32", "F16", "BF16", "Q8_0", "Q4_0"]
    facts = ["100", "90 %", "90.2 to 98.4"]
    shares = ["96.0", "96.0", "96.0", "95.0", "80.0"]
    assert rows(text, "Title of sort") == [["Title of sort", *facts, *shares]]
    (total,) = rows(text, "**Other tasks with one right answer**")
    assert total[1:3] == ["**1000**", "**90 %**"]
    assert total[4:6] == ["**96.0**", "**96.0**"]
    assert rows(text, "**Repeat what is said**")[0][1:3] == ["**100**", ""]
    tables = text.split("\n\n")
    for table in (part for part in tables if part.startswith("| ")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_task_below_the_goal_is_marked_though_its_group_is_above() -> None:
    found = report()
    found["formats"][1]["answers"]["sort"] = answers(89)["sort"]
    found["formats"][4]["answers"]["json"] = answers(1)["json"]  # the goal is about F16
    text = page(found)
    assert rows(text, "Title of sort")[0][2] == "90 %, below"
    assert rows(text, "Title of json")[0][2] == "90 %"
    assert rows(text, "**Other tasks with one right answer**")[0][2] == "**90 %**"


def test_the_page_says_whether_the_order_holds() -> None:
    text = page(report())
    assert (
        "The formats order as expected: F32 is as F16, the KL divergence rises with every step "
        "from BF16 to Q8_0 to Q4_0, and no format is worse than one of the next smaller size."
    ) in text
    assert "72 comparisons" in text
    wrong = report()
    wrong["formats"][3]["kl"] = 0.5
    text = page(wrong)
    assert "The formats order as expected" not in text
    assert "- the KL divergence of Q8_0 (0.5) is not below that of the smaller Q4_0 (0.02)" in text
    assert "72 comparisons" in text


def test_the_order_names_the_types_that_there_are() -> None:
    found = report()
    new = found["formats"][4] | {"type": "iq4_nl"}
    text = page(report([*found["formats"][1:], new]))
    assert "as expected: the KL divergence rises with every step from BF16 to Q8_0 to Q4_0 or " in (
        text
    )


def test_the_page_says_how_it_was_made() -> None:
    text = page(report())
    assert f"\n    {COMMAND} -n 100\n" in text
    assert "Commit 0123456789ab, python 3.11.9, edgeqwen 0.1.0, numpy 2.0.0;" in text


def test_a_busy_machine_is_named() -> None:
    found = report()
    found["machine"]["load_average"] = 2.41
    assert (
        "The machine was busy (load average 2.41): the figures of speed are not fit to quote"
    ) in page(found)
    found["machine"]["load_average"] = BUSY
    assert "busy" not in page(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["tasks"].pop(1), "measured without task differences; measure again"),
        (lambda found: found.pop("neighbours"), "measured before formats were compared"),
    ],
)
def test_an_older_json_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    found = report()
    change(found)
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps(found), "utf-8")
    with pytest.raises(SystemExit, match=f"figures.json: {message}") as ended:
        guide_formats.main(["--from-json", "--json", str(figures), "--docs", str(tmp_path / "d")])
    assert "\n" not in str(ended.value)
    assert not (tmp_path / "d").exists()


def test_names_in_the_plot_cover_neither_marks_nor_one_another() -> None:
    # As 24 formats of six sizes lie, which all answer nearly the same.
    marks = [("IQ4_NL", 100.0 + 60 * (i % 6), 80.0 + 3 * (i // 6)) for i in range(24)]
    area = (0.0, 0.0, 500.0, 200.0)
    places = name_places(marks, area)
    boxes = [*places, *((x - 4, y - 4, x + 4, y + 4) for _, x, y in marks)]
    for i, a in enumerate(places):
        assert min(a[0], a[1]) >= 0
        assert a[2] <= 500
        assert a[3] <= 200
        for b in boxes[:i] + boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_name_stands_right_of_its_mark_if_it_can() -> None:
    ((left, bottom, _, top),) = name_places([("A", 50.0, 50.0)], (0.0, 0.0, 100.0, 100.0))
    assert left == 58.0
    assert bottom <= 50.0 < top


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
