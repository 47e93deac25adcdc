"""How fast files are quantized: edgeqwen against llama.cpp, turn by turn, on the same file.

Every conversion has a process of its own. Writes the figures of a shape as JSON and, from those of
all shapes, docs/conversion.md; see benchmarks/README.md.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from benchmarks.guide_tasks import positive
from benchmarks.page_parts import DOCS, RESULTS, busy_text
from benchmarks.quantize_page import COMMAND, write_quantize_page
from benchmarks.quantize_run import COPY, Run, run
from benchmarks.quantize_sources import SHAPES, source_file
from benchmarks.runtimes import NAMES

TYPES = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "iq4_xs", "q3_k_m", "q2_k")
COPIED = "q4_0"  # the type whose bytes are also copied

Runner = Callable[..., Run]
Rounds = dict[str, list[Run]]  # by contestant


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, unless only the page is wanted, and writes the page."""
    options = parse(arguments)
    if not options.from_json:
        report = measure(options)
        path = options.json / f"quantize_speed-{options.shape}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(write_quantize_page(options.json, options.docs / "conversion.md"))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; says what is wrong with it and ends the program if need be."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1.5B", help="(1.5B)")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES), metavar="TYPE")
    parser.add_argument("-t", "--threads", type=positive, default=machine.n_usable_cpus())
    parser.add_argument("--rounds", type=positive, default=3, help="of which the median counts")
    parser.add_argument("--json", type=Path, default=RESULTS, help="folder of the figures")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--from-json", action="store_true", help="only write the page anew")
    options = parser.parse_args(arguments)
    if options.from_json and not list(options.json.glob("quantize_speed-*.json")):
        parser.error(f"{options.json} holds no quantize_speed-*.json; measure first")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what quantize_speed-SHAPE.json holds."""
    about = machine.describe(options.threads)  # before a model is made, which is work
    if busy := busy_text(about):
        print(busy)
    source = source_file(options.shape)
    types = []
    for type in options.types:
        rounds = rounds_of(type, source, options.threads, options.rounds)
        found = {"type": type, **summary(rounds, source.stat().st_size)}
        types.append(found)
        shown = ", ".join(f"{who} {found[who]['seconds']:.2f} s" for who in rounds)
        print(f"{type}: {shown}", flush=True)
    return {
        "benchmark": "quantize_speed",
        "command": command(options),
        "machine": about,
        "shape": options.shape,
        "source_bytes": source.stat().st_size,
        "options": {"n_threads": options.threads, "rounds": options.rounds},
        "types": types,
    }


def command(options: argparse.Namespace) -> str:
    """Returns the command line that measures the same."""
    parts = [COMMAND, f"--shape {options.shape} -t {options.threads} --rounds {options.rounds}"]
    if tuple(options.types) != TYPES:
        parts.append(f"--types {' '.join(options.types)}")
    return " ".join(parts)


def rounds_of(
    type: str, source: Path, n_threads: int, n_rounds: int, runner: Runner = run
) -> Rounds:
    """Returns all runs of a type: in every round, each contestant has its turn."""
    output = source.with_suffix(f".{type}.part")
    # The first runs only compile kernels and read the file into the page cache.
    first = {who: runner(who, source, output, type, n_threads) for who in NAMES}
    contestants = [*NAMES, COPY] if type == COPIED else list(NAMES)
    n_bytes = first[NAMES[0]].output_bytes
    found: Rounds = {who: [] for who in contestants}
    for _ in range(n_rounds):
        for who in contestants:
            found[who].append(runner(who, source, output, type, n_threads, copied_bytes=n_bytes))
    return found


def summary(rounds: Rounds, source_bytes: int) -> dict[str, Any]:
    """Returns the medians of each contestant, and edgeqwen's over the others' under ``ratio``.

    ``read_bytes_per_s`` and ``written_bytes_per_s`` are of whole files in ``seconds``;
    ``flushed_s`` is until everything is on the disk. Imports count in neither.
    """
    found: dict[str, Any] = {}
    for who, runs in rounds.items():
        seconds = median(run.seconds for run in runs)
        private = [run.peak_private_bytes for run in runs if run.peak_private_bytes is not None]
        found[who] = {
            "seconds": seconds,
            "import_s": median(run.import_s for run in runs),
            "flushed_s": median(run.seconds + run.flush_s for run in runs),
            "read_bytes_per_s": source_bytes / seconds,
            "written_bytes_per_s": runs[0].output_bytes / seconds,
            "output_bytes": runs[0].output_bytes,
            "peak_rss_bytes": max(run.peak_rss_bytes for run in runs),
            "peak_private_bytes": max(private, default=None),
            "rounds": [{"seconds": run.seconds, "flush_s": run.flush_s} for run in runs],
        }
    ours, *others = rounds
    found["ratio"] = {
        who: {name: found[ours][name] / found[who][name] for name in ("seconds", "flushed_s")}
        for who in others
    }
    return found


if __name__ == "__main__":
    main()
