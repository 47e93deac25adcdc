"""docs/conversion.md, written from quantize_speed-*.json alone, with a section for every shape."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.page_parts import busy_text, origin_text, table, write_page

COMMAND = "python -m benchmarks.quantize_speed"


def write_quantize_page(figures: Path, path: Path) -> str:
    """Writes the page from the JSON files of a folder; returns its tables."""
    files = sorted(figures.glob("quantize_speed-*.json"))
    reports = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
    write_page(page(reports), path)
    return "\n\n".join(
        part
        for report in reports.values()
        for part in (report["shape"], time_table(report), beside_text(report), memory_table(report))
    )


def page(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns docs/conversion.md; ``reports`` are by the names of their files."""
    sections = [
        "# How fast files are quantized",
        "`edgeqwen quantize` and llama.cpp's `llama_model_quantize` take turns with the same F16 "
        "file of random weights, each time in a process of its own. The file has been read "
        "before, so it is in the page cache where memory is large enough. A ratio is edgeqwen's "
        "time over the other's: below 1, edgeqwen is the faster.",
        "edgeqwen's time ends when the new file is safe on the disk. llama.cpp leaves that to the "
        "system; the second ratio gives both the same end. A copy reads all bytes of the source, "
        "writes as many as the result has and flushes them: it is as fast as memory and disk are.",
    ]
    for name, report in reports.items():
        sections += _section(report, name)
    return "\n\n".join(sections) + "\n"


def _section(report: Mapping[str, Any], figures: str) -> Sequence[str]:
    options = report["options"]
    rounds = "one round" if options["rounds"] == 1 else f"{options['rounds']} rounds"
    return (
        f"## {report['shape']}",
        f"{report['source_bytes'] / 1e9:.2f} GB in F16; {options['n_threads']} threads, medians of "
        f"{rounds}. {busy_text(report['machine'])}".rstrip(),
        time_table(report),
        beside_text(report),
        "Peak memory, the most of all rounds. A process's resident set counts the pages of a "
        "mapped file that it has touched, which the system may take back at any time; its own "
        "memory is what is left without them.",
        memory_table(report),
        origin_text(report, figures),
    )


def time_table(report: Mapping[str, Any]) -> str:
    """Returns the table of times, with a row for every type."""
    heads = (
        "type", "edgeqwen, s", "llama.cpp, s", "ratio", "ratio, both on the disk",
        "edgeqwen reads, MB/s", "edgeqwen writes, MB/s",
    )  # fmt: skip
    rows = []
    for figures in report["types"]:
        ours, theirs = figures["edgeqwen"], figures["llama.cpp"]
        ratio = figures["ratio"]["llama.cpp"]
        rows.append(
            [
                figures["type"].upper(),
                f"{ours['seconds']:.2f}",
                f"{theirs['seconds']:.2f}",
                f"{ratio['seconds']:.2f}",
                f"{ratio['flushed_s']:.2f}",
                *_rates(ours),
            ]
        )
    return table(heads, rows)


def beside_text(report: Mapping[str, Any]) -> str:
    """Returns what the times are to be seen beside: a copy's, and those of imports."""
    sentences = []
    for figures in report["types"]:
        if "copy" in figures:
            read, written = _rates(figures["copy"])
            times = figures["ratio"]["copy"]["seconds"]
            sentences.append(
                f"A copy of as many bytes as for {figures['type'].upper()} takes "
                f"{figures['copy']['seconds']:.2f} s, and edgeqwen's time is {times:.2f} times "
                f"that; the copy reads {read} MB/s and writes {written} MB/s."
            )
    ours, theirs = (
        median(figures[who]["import_s"] for figures in report["types"])
        for who in ("edgeqwen", "llama.cpp")
    )
    sentences.append(
        "What is imported first, once for a run of a program, is not in these times: "
        f"{ours:.2f} s for edgeqwen with Numba, {theirs:.2f} s for llama-cpp-python."
    )
    return " ".join(sentences)


def memory_table(report: Mapping[str, Any]) -> str:
    """Returns the table of peak memory and sizes of files, with a row for every type."""
    heads = (
        "type", "edgeqwen, resident, MB", "its own, MB", "llama.cpp, resident, MB", "its own, MB",
        "edgeqwen's file, MB", "llama.cpp's file, MB",
    )  # fmt: skip
    rows = []
    for figures in report["types"]:
        row = [figures["type"].upper()]
        for who in ("edgeqwen", "llama.cpp"):
            row += [_megabytes(figures[who][f"peak_{kind}_bytes"]) for kind in ("rss", "private")]
        row += [_megabytes(figures[who]["output_bytes"]) for who in ("edgeqwen", "llama.cpp")]
        rows.append(row)
    return table(heads, rows)


def _rates(found: Mapping[str, Any]) -> list[str]:
    return [f"{found[f'{way}_bytes_per_s'] / 1e6:.0f}" for way in ("read", "written")]


def _megabytes(n_bytes: int | None) -> str:
    return "not told" if n_bytes is None else f"{n_bytes / 1e6:.0f}"
