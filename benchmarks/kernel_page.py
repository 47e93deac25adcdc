"""docs/kernels.md, written from kernel_speed.json alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.page_parts import busy_text, origin_text, table, write_page

COMMAND = "python -m benchmarks.kernel_speed"
REFERENCE = "Q4_0"
FIGURES = "kernel_speed.json"


def write_kernel_page(report: Mapping[str, Any], path: Path) -> str:
    """Writes the page; returns its tables, for people who wait for them."""
    write_page(page(report), path)
    return f"{gemv_table(report)}\n\n{gemm_table(report)}"


def page(report: Mapping[str, Any]) -> str:
    """Returns docs/kernels.md."""
    options = report["options"]
    shapes = " and ".join(f"{rows} × {columns}" for rows, columns in options["shapes"])
    least = min(figures["n_bytes"] for figures in report["types"]) / 1e6
    sections = [
        "# Kernels, by type",
        "What a matrix product costs, type by type, on the feed-forward matrices of Qwen2.5-1.5B "
        f"({shapes}), run by the thread team in the chunks that a model's products have. "
        f"{busy_text(report['machine'])}".rstrip(),
        "## One token: GEMV, and how fast memory is read",
        f"Weights of at least {least:.0f} MB go by for every token, more than caches hold: what "
        "bounds the speed is how fast memory is read. The plain read is a kernel that loads the "
        "same bytes, in the same chunks, as vectors and adds them up; it and the product take "
        "turns. A share of 100 % means that unpacking and multiplying cost nothing. Bytes are "
        "those that the weights take in memory, which for IQ1 to IQ3 and TQ1_0 are more than in "
        "the file.",
        gemv_table(report),
        f"## {options['n_tokens']} tokens: GEMM, and how fast the CPU multiplies",
        f"Speed as a multiple of {REFERENCE}'s in the same round; one matrix of each shape. "
        "Billions of weights times tokens in a second are in brackets.",
        gemm_table(report),
        f"Medians of {options['rounds']} rounds, each through all types.",
        "## How it was made",
        origin_text(report, FIGURES),
    ]
    return "\n\n".join(sections) + "\n"


def gemv_table(report: Mapping[str, Any]) -> str:
    """Returns a table with a row for every type."""
    counts = report["options"]["threads"]
    heads = ["type", "bits per weight in memory"]
    for n in counts:
        heads += [f"GEMV, GB/s, {_threads(n)}", "of a plain read"]
    rows = []
    for figures in report["types"]:
        row = [figures["type"], f"{figures['bits_per_weight']:.2f}"]
        for n in counts:
            found = figures["by_threads"][str(n)]
            rate = figures["n_bytes"] / found["gemv_s"] / 1e9
            row += [f"{rate:.1f}", f"{100 * found['gemv_of_read']:.0f} %"]
        rows.append(row)
    last = ["plain read", ""]
    for n in counts:
        last += [f"{_read_rate(report['types'], n):.1f}", ""]
    return table(heads, [*rows, last])


def gemm_table(report: Mapping[str, Any]) -> str:
    """Returns a table with a row for every type."""
    options = report["options"]
    work = sum(rows * columns for rows, columns in options["shapes"]) * options["n_tokens"] / 1e9
    heads = ["type", *(_threads(n) for n in options["threads"])]
    rows = []
    for figures in report["types"]:
        found = [figures["by_threads"][str(n)] for n in options["threads"]]
        cells = [f"{f['gemm_of_reference']:.2f} ({work / f['gemm_s']:.1f})" for f in found]
        rows.append([figures["type"], *cells])
    return table(heads, rows)


def _read_rate(types: Sequence[Mapping[str, Any]], n_threads: int) -> float:
    """Returns the plain read's median over the types, in GB/s."""
    rates: list[float] = [
        figures["n_bytes"] / figures["by_threads"][str(n_threads)]["read_s"] / 1e9
        for figures in types
    ]
    return median(rates)


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"
