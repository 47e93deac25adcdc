"""edgeqwen and llama.cpp on one machine: speed, start, memory, beside busy neighbours, scaling.

Writes the figures as JSON and, from that alone, docs/performance.md and its plots; see
benchmarks/README.md. A run may measure some parts only: they take their place in the JSON, where
each keeps the machine, the load and the commit of its own run.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine, performance_runs, scaling
from benchmarks.guide_tasks import positive
from benchmarks.page_parts import DOCS, RESULTS, busy_text
from benchmarks.performance_page import COMMAND, write_performance_page
from benchmarks.synthetic import SHAPES, model_file
from benchmarks.versus_llama_cpp import llama_cpp_features

FIGURES = RESULTS / "performance.json"
MODELS = (("0.5B", "q4_0"), ("1.5B", "q4_0"), ("1.5B", "q4_k_m"), ("0.5B", "q8_0"))

# What is measured of every model; the rest is measured of the first one.
OF_ALL = ("table", "start")
Part = Callable[[Path, argparse.Namespace, performance_runs.About], dict[str, Any] | None]
PARTS: dict[str, Part] = {
    "table": performance_runs.table,
    "depth": performance_runs.depth,
    "threads": performance_runs.threads,
    "start": performance_runs.start,
    "busy": performance_runs.busy,
    "head": performance_runs.head,
    "scaling": lambda path, options, _: scaling.measure(path, options),
}
# What a trial takes instead of the defaults: it shows that all works, and no more.
TRIAL: dict[str, Any] = {
    "rounds": 1,
    "steps": 2,
    "prompt": 64,
    "generate": 8,
    "deep": 256,
    "depths": [0, 256],
    "busy_tokens": 4,
    "seconds": 0.5,
}
SIZES = (*TRIAL, "threads", "thread_counts")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, unless only the page is wanted, and writes the page."""
    options = parse(arguments)
    if not options.from_json:
        measure(options)
    report = json.loads(options.json.read_text(encoding="utf-8"))
    print(write_performance_page(report, options.docs))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; says what is wrong with it and ends the program if need be."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.only if name not in PARTS]:
        parser.error(f"--only: {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    if unknown := [name for name in options.shapes if name not in SHAPES]:
        parser.error(f"--shapes: {', '.join(unknown)}; choose from {', '.join(SHAPES)}")
    if negative := [n for n in (options.deep, *options.depths) if n < 0]:
        parser.error(f"{negative[0]} is no depth: it counts tokens, from 0")
    if options.from_json and not options.json.is_file():
        parser.error(f"{options.json} is not a file; measure first, without --from-json")
    if options.trial:
        for name, value in TRIAL.items():
            setattr(options, name, value)
    return options


def measure(options: argparse.Namespace) -> None:
    """Measures the parts that are asked for, and puts each into the JSON as soon as it is there."""
    # Later, this benchmark itself has made load, and has changed the file with its figures.
    before = {"load_average": round(machine.load_average(), 2), "commit": machine.commit()}
    planned = [
        (part, shape, type)
        for part in options.only
        for shape, type in (MODELS if part in OF_ALL else MODELS[:1])
        if shape in options.shapes
    ]
    for shape, type in dict.fromkeys((shape, type) for _, shape, type in planned):
        model_file(shape, type)  # making one is work that no measurement should have behind it
    features = llama_cpp_features()
    for part, shape, type in planned:
        path = model_file(shape, type)
        about = machine.describe(options.threads) | before | {"llama_cpp_features": features}
        print(f"{part} of {shape} {type.upper()}. {busy_text(about)}".rstrip(), flush=True)
        figures = PARTS[part](path, options, about)
        if figures is None:
            print(f"{part}: there is nothing to measure here", flush=True)
            continue
        record = {
            "machine": about,
            "command": command(options),
            "trial": options.trial,
            "options": {name: getattr(options, name) for name in SIZES},
            "model": {
                "shape": shape,
                "type": type,
                "file": path.name,
                "bytes": path.stat().st_size,
            },
            **figures,
        }
        merge(options.json, part, f"{shape} {type.upper()}", record)


def merge(path: Path, part: str, model: str, record: dict[str, Any]) -> None:
    """Puts a part's record of a model into the JSON file, in place of an older one."""
    report: dict[str, Any] = {"benchmark": "performance", "parts": {}}
    if path.is_file():
        report = json.loads(path.read_text(encoding="utf-8"))
    report["parts"].setdefault(part, {})[model] = record
    # In the order of this file, whatever was measured first.
    order = [f"{shape} {type.upper()}" for shape, type in MODELS]
    report["parts"] = {
        name: {model: found[model] for model in order if model in found}
        for name in PARTS
        if (found := report["parts"].get(name))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def command(options: argparse.Namespace) -> str:
    """Returns the command line that measures the same; what is as by default is left out."""
    if options.trial:
        return f"{COMMAND} --trial"
    parser, parts = _parser(), [COMMAND]
    for name in SIZES:
        value = getattr(options, name)
        if value != parser.get_default(name):
            values = " ".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"--{name.replace('_', '-')} {values}")
    return " ".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    add, n_cpus = parser.add_argument, machine.n_usable_cpus()
    add("--only", type=_names, default=list(PARTS), metavar="PART,...", help="all")
    add("--shapes", type=_names, default=list(SHAPES), metavar="SHAPE,...", help="all")
    add("-t", "--threads", type=positive, default=n_cpus)
    add("--thread-counts", type=positive, nargs="+", default=sorted({1, 2, n_cpus}))
    add("-p", "--prompt", type=positive, default=512, help="tokens to prefill (512)")
    add("-n", "--generate", type=positive, default=64, help="tokens to decode (64)")
    add("--deep", type=int, default=4096, help="the table's second depth (4096)")
    add("--depths", type=int, nargs="+", default=[0, 512, 1024, 2048, 4096, 8192])
    add("--busy-tokens", type=positive, default=32, help="to decode on a busy machine (32)")
    add("--rounds", type=positive, default=5, help="of which the median counts")
    add("--steps", type=positive, default=5, help="of a round where steps are timed (5)")
    add("--seconds", type=float, default=2.0, help="of a round in slow motion (2)")
    add("--trial", action="store_true", help="small sizes, one round: the page says so")
    add("--json", type=Path, default=FIGURES, help="where the figures are kept")
    add("--docs", type=Path, default=DOCS, help="folder of the page and the plots")
    add("--from-json", action="store_true", help="only write the page anew")
    return parser


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


if __name__ == "__main__":
    main()
