"""What the pages of all benchmarks share: tables, a warning, and where the figures come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import BUSY, BUSY_CPUS, ROOT

RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose first column is text and whose others are figures."""
    lines = [heads, ("---", *("---:",) * (len(heads) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def busy_text(about: Mapping[str, Any]) -> str:
    """Returns a warning if the machine had other work as the measuring began, else nothing."""
    found = []
    if about["load_average"] > BUSY:
        found.append(f"load average {about['load_average']}")
    if about.get("busy_cpus", 0) > BUSY_CPUS:
        found.append(f"{about['busy_cpus']} CPUs at work for others")
    if not found:
        return ""
    return f"The machine was busy ({', '.join(found)}): figures of speed are not fit to quote."


def origin_text(report: Mapping[str, Any], figures: str) -> str:
    """Returns the command, the machine and the versions; ``figures`` is the JSON file's name."""
    about = report["machine"]
    names = ("python", "edgeqwen", "numpy", "numba", "llama-cpp-python")
    versions = [f"{name} {about['versions'][name]}" for name in names if name in about["versions"]]
    place = f"../benchmarks/results/{figures}"
    return (
        f"    {report['command']}\n\n"
        f"{about['cpu']}, {about['n_usable_cpus']} usable CPUs, kernels for {about['isa']}. Commit "
        f"{about['commit']}, {', '.join(versions)}; the figures are in [{figures}]({place}), and "
        "[the benchmarks' page](../benchmarks/README.md) tells more."
    )


def write_page(text: str, path: Path) -> None:
    """Writes a page; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
