"""docs/performance.md and its plots: they say what the JSON says, and nothing else."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import performance
from benchmarks.machine import BUSY_CPUS
from benchmarks.performance_page import COMMAND, SECTIONS, page, write_performance_page
from benchmarks.performance_plots import PLOTS, write_plots
from tests.benchmarks.performance_report import report
from tests.benchmarks.tables import rows


def test_every_part_has_a_section() -> None:
    assert list(SECTIONS) == list(performance.PARTS)
    text = page(report())
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == len(SECTIONS) + 1
    tables = [part for part in text.split("\n\n") if part.startswith("| ")]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_speeds_ratios_and_shares() -> None:
    text = page(report())
    assert rows(text, "0.5B Q4_0, prefill 512 at 0") == [
        ["0.5B Q4_0, prefill 512 at 0", "450.0", "300.0", "1.50", "40 % (45 %)"]
    ]
    assert rows(text, "0.5B Q4_0, decode 64 at 4096") == [
        ["0.5B Q4_0, decode 64 at 4096", "37.5", "30.0", "1.25", "88 %"]
    ]
    assert rows(text, "2048") == [["2048", "450.0", "300.0", "1.50", "75.0", "60.0", "1.25"]]
    assert ["1", "225.0", "150.0", "1.50", "37.5", "30.0", "1.25"] in rows(text, "1")


def test_start_and_memory() -> None:
    text = page(report())
    assert rows(text, "0.5B Q4_0, edgeqwen, packed file") == [
        ["0.5B Q4_0, edgeqwen, packed file", "0.40", "420", "60"]
    ]
    assert rows(text, "0.5B Q4_0, llama.cpp")[0][1:] == ["1.20", "650", "not told"]


def test_a_busy_neighbour_and_the_head() -> None:
    text = page(report())
    assert rows(text, "llama.cpp") == [["llama.cpp", "60.00", "6.00", "10 %", "15.00", "25 %"]]
    assert "32 tokens generated on 2 threads" in text
    assert rows(text, "decode") == [["decode", "90.0", "60.0", "1.50"]]
    # Where the system can't keep a process on a CPU.
    found = report()
    for by_condition in (
        found["parts"]["busy"]["0.5B Q4_0"][key] for key in ("of_idle", "decode_tps")
    ):
        del by_condition["pinned"]
    assert rows(page(found), "llama.cpp") == [["llama.cpp", "60.00", "6.00", "10 %"]]


def test_scaling() -> None:
    text = page(report())
    assert rows(text, "decode, memory 40 GB/s")[0][1:] == ["50.0", "100", "200", "400", "800"]
    assert rows(text, "prefill, 2 cores") == [["prefill, 2 cores", "437.0", "460.0", "+5.3 %"]]
    assert rows(text, "decode, 8 cores")[0][1:] == ["60 %", "10 %", "20 %", "10 %"]
    assert rows(text, "8 cores") == [["8 cores", "2.00", "2.02", "+1.0 %", "95 %"]]
    assert rows(text, "1 core and 1 core of speed 0.4")[0][-1] == "90 %"
    assert "reads of 16.0 GB/s on one core and 31.0 on two" in text
    assert "20 and 250 ns for a barrier" in text


def test_a_part_that_was_not_measured_is_left_out() -> None:
    found = report()
    del found["parts"]["head"]
    text = page(found)
    assert "screened" not in text
    assert "Beside a busy process" in text


def test_each_part_says_where_and_at_which_commit_it_was_measured() -> None:
    found = report()
    found["parts"]["busy"]["0.5B Q4_0"]["machine"]["commit"] = "ba9876543210"
    text = page(found)
    assert rows(text, "busy, 0.5B Q4_0")[0][1:] == [
        "5", "ba9876543210", "0.1", "0.02", "30.0", "400.0",
    ]  # fmt: skip
    assert rows(text, "table, 1.5B Q4_K_M")[0][2] == "0123456789ab"
    assert "A CPU, 2 usable CPUs, kernels for avx2. python 3.11.9, edgeqwen 0.1.0," in text
    assert "built to use SSE3, AVX2, OPENMP." in text
    assert f"\n    {COMMAND}\n" in text


def test_trials_and_busy_machines_are_named() -> None:
    assert "trial" not in page(report())
    assert "was busy" not in page(report())
    found = report()
    found["parts"]["start"]["0.5B Q4_0"]["trial"] = True
    found["parts"]["depth"]["0.5B Q4_0"]["machine"]["busy_cpus"] = BUSY_CPUS * 2
    text = page(found)
    assert "**Figures of a trial run" in text
    assert "**The machine was busy at times" in text
    assert rows(text, "start, 0.5B Q4_0")[0][1] == "trial"


def test_the_page_and_the_plots_from_json_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="draws the plots (the plots extra)")
    figures = tmp_path / "performance.json"
    figures.write_text(json.dumps(report()), "utf-8")
    docs = tmp_path / "docs"
    performance.main(["--from-json", "--json", str(figures), "--docs", str(docs)])
    text = (docs / "performance.md").read_text("utf-8")
    assert text == page(report())
    assert "| llama.cpp | 60.00 |" in capsys.readouterr().out
    for name in PLOTS:
        assert f"(performance-{name}.svg)" in text
    words = {
        name: {
            element.text for element in ElementTree.parse(docs / f"performance-{name}.svg").iter()
        }
        for name in PLOTS
    }
    assert {"edgeqwen", "llama.cpp", "decode, tokens/s", "at 4096"} <= words["table"]
    assert {"tokens in the context", "0", "1024", "4096"} <= words["depth"]
    assert {"first token, s", "peak resident memory, MB", "packed file"} <= words["start"]
    assert {"no ceiling", "memory 75 GB/s", "measured"} <= words["scaling"]


def test_plots_are_always_the_same(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the plots (the plots extra)")
    for folder in ("a", "b"):
        assert write_plots(report()["parts"], tmp_path / folder) == list(PLOTS)
    for name in PLOTS:
        a, b = ((tmp_path / f / f"performance-{name}.svg").read_bytes() for f in ("a", "b"))
        assert a == b
        assert b"<dc:date>" not in a


def test_a_report_of_a_single_part(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the plots (the plots extra)")
    found = report()
    found["parts"] = {"busy": found["parts"]["busy"]}
    shown = write_performance_page(found, tmp_path)
    assert rows(shown, "edgeqwen") == [["edgeqwen", "70.00", "42.00", "60 %", "35.00", "50 %"]]
    assert [path.name for path in tmp_path.iterdir()] == ["performance.md"]


def test_the_committed_page_is_what_its_json_gives() -> None:
    if not performance.FIGURES.is_file():
        pytest.skip("benchmarks/results/performance.json isn't there yet")
    found = json.loads(performance.FIGURES.read_text("utf-8"))
    written = (performance.DOCS / "performance.md").read_text("utf-8")
    assert written == page(found), f"run {COMMAND} --from-json"
    for name in set(PLOTS) & set(found["parts"]):
        assert (performance.DOCS / f"performance-{name}.svg").is_file()
