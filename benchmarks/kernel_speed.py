"""Matrix products of every type: GEMV against a plain read of memory, GEMM against Q4_0's.

Writes the figures as JSON and, from that alone, docs/kernels.md; see benchmarks/README.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from benchmarks.guide_tasks import positive
from benchmarks.kernel_page import COMMAND, REFERENCE, write_kernel_page
from benchmarks.kernel_tapes import (
    FFN,
    Recorded,
    aligned,
    fill,
    matrices,
    record_products,
    record_read,
)
from benchmarks.page_parts import DOCS, RESULTS, busy_text
from edgeqwen.executor import Team
from edgeqwen.formats import FORMATS, Format
from edgeqwen.model.weights import Matrix

FIGURES = RESULTS / "kernel_speed.json"
SETTLE_S = 0.05  # what was done before is over by then
NAMES = {format_.name: format_ for format_ in FORMATS.values()}

Rounds = dict[str, list[float]]  # seconds of one pass, by what was measured


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, unless only the page is wanted, and writes the page."""
    options = parse(arguments)
    if not options.from_json:
        report = measure(options)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    report = json.loads(options.json.read_text(encoding="utf-8"))
    print(write_kernel_page(report, options.docs / "kernels.md"))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; says what is wrong with it and ends the program if need be."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    counts = sorted({1, machine.n_usable_cpus()})
    parser.add_argument("-t", "--threads", type=positive, nargs="+", default=counts)
    parser.add_argument("--types", nargs="+", default=list(NAMES), metavar="TYPE", help="all")
    parser.add_argument("--tokens", type=positive, default=256, help="of a GEMM (256)")
    parser.add_argument("--rounds", type=positive, default=7, help="of which the median counts")
    parser.add_argument("--passes", type=positive, default=3, help="of GEMV in a round (3)")
    parser.add_argument(
        "--mb", type=positive, default=268, help="of weights, at least, that a GEMV reads (268)"
    )
    parser.add_argument("--json", type=Path, default=FIGURES, help="where the figures are kept")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--from-json", action="store_true", help="only write the page anew")
    options = parser.parse_args(arguments)
    options.types = [name.upper() for name in options.types]
    if unknown := [name for name in options.types if name not in NAMES]:
        parser.error(f"--types: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    # What all are compared with.
    options.types = list(dict.fromkeys((REFERENCE, *options.types)))
    if options.tokens < 2:
        parser.error(f"--tokens is {options.tokens}; a GEMM has 2 or more")
    if options.from_json and not options.json.is_file():
        parser.error(f"{options.json} is not a file; measure first, without --from-json")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what kernel_speed.json holds."""
    about = machine.describe(max(options.threads))
    if busy := busy_text(about):
        print(busy)
    types = [NAMES[name] for name in options.types]
    counts = list(dict.fromkeys(options.threads))
    planned = {type: matrices(type, FFN, options.mb * 1_000_000) for type in types}
    # All types take turns in one piece of memory.
    memory = aligned(max(last.address + last.n_bytes for *_, last in planned.values()), huge=True)
    rounds: dict[tuple[int, Format], Rounds] = {}
    # The first round only compiles kernels and brings in pages.
    for number in range(-1, options.rounds):
        for type in types:
            fill(memory, planned[type])
            for n in counts:
                seconds = one_round(planned[type], memory.ctypes.data, n, options)
                found = rounds.setdefault((n, type), {})
                for what, value in seconds.items() if number >= 0 else ():
                    found.setdefault(what, []).append(value)
        print(f"round {number + 1} of {options.rounds}", flush=True)
    return {
        "benchmark": "kernel_speed",
        "command": command(options),
        "machine": about,
        "options": {
            "threads": counts,
            "n_tokens": options.tokens,
            "rounds": options.rounds,
            "passes": options.passes,
            "shapes": [list(shape) for shape in FFN],
        },
        "types": [
            {
                "type": type.name,
                "bits_per_weight": 8 * type.tile_bytes / (16 * type.tile_columns),
                "n_bytes": sum(matrix.n_bytes for matrix in planned[type]),
                "by_threads": {
                    str(n): figures(rounds[n, type], rounds[n, NAMES[REFERENCE]]) for n in counts
                },
            }
            for type in types
        ],
    }


def one_round(
    planned: Sequence[Matrix], memory: int, n_threads: int, options: argparse.Namespace
) -> dict[str, float]:
    """Returns the seconds of a pass of ``read``, ``gemv`` and ``gemm`` over one type's weights.

    The first two go over all matrices, the last over one of each shape.
    """
    with closing(Team(n_threads)) as team:
        read, _ = record_read(planned, memory, team)
        one, _ = record_products(planned, memory, 1, team)
        many, _ = record_products(planned[: len(FFN)], memory, options.tokens, team)
        time.sleep(SETTLE_S)
        # Every pass that counts follows one over the same bytes: the caches hold their end.
        one.run(team)
        found = {"read": 0.0, "gemv": 0.0}
        for _ in range(options.passes):
            for name, recorded in (("read", read), ("gemv", one)):
                found[name] += seconds_of(recorded, team) / options.passes
        many.run(team)
        found["gemm"] = seconds_of(many, team)
    return found


def seconds_of(recorded: Recorded, team: Team) -> float:
    began = time.perf_counter()
    recorded.run(team)
    return time.perf_counter() - began


def figures(rounds: Rounds, reference: Rounds) -> dict[str, Any]:
    """Returns the rounds and, as medians of what each round gives, the two ratios.

    ``gemv_of_read``: how much of the plain read's bandwidth GEMV reaches. ``gemm_of_reference``:
    how fast GEMM is, as a multiple of the reference's.
    """
    return {
        "gemv_of_read": median(
            read / gemv for read, gemv in zip(rounds["read"], rounds["gemv"], strict=True)
        ),
        "gemm_of_reference": median(
            theirs / ours for theirs, ours in zip(reference["gemm"], rounds["gemm"], strict=True)
        ),
        **{f"{name}_s": median(values) for name, values in rounds.items()},
        "rounds_s": rounds,
    }


def command(options: argparse.Namespace) -> str:
    """Returns the command line that measures the same."""
    threads = " ".join(map(str, options.threads))
    parts = [COMMAND, f"-t {threads}", f"--tokens {options.tokens}", f"--rounds {options.rounds}"]
    parts += [f"--passes {options.passes}", f"--mb {options.mb}"]
    if set(options.types) != set(NAMES):
        parts.append(f"--types {' '.join(options.types)}")
    return " ".join(parts)


if __name__ == "__main__":
    main()
