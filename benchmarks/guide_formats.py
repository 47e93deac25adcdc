"""The built-in model in every format that edgeqwen writes: size, quality and speed.

Writes the figures as JSON and, from that alone, docs/quality.md and docs/quality.svg; see
benchmarks/README.md.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import edgeqwen
from benchmarks import guide_tasks, machine
from benchmarks.divergence import differences, divergences
from benchmarks.format_order import REFERENCE, neighbours, surprises
from benchmarks.quality_page import COMMAND, OutdatedReportError, busy_text, write_page
from benchmarks.runtimes import Runtime, open_runtime
from benchmarks.task_scores import ask_all
from edgeqwen.guide import held_out_text
from edgeqwen.quant import TYPES, quantize
from tools.guide_model.corpus.mixture import TASKS

RESULTS = machine.ROOT / "benchmarks" / "results" / "guide_formats.json"
DOCS = machine.ROOT / "docs"
SETTLE_S = 0.2  # a thread team may spin for a moment after its last task

# What of the command line decides the figures, by its name among the options.
FLAGS = {
    "n": "-n",
    "threads": "-t",
    "prompt": "-p",
    "generate": "-g",
    "rounds": "--rounds",
    "tokens": "--tokens",
}

Formats = dict[str, dict[str, Any]]  # the figures of every format


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, unless only the page is wanted, and writes the page."""
    options = parse(arguments)
    if not options.from_json:
        report = measure(options)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    report = json.loads(options.json.read_text(encoding="utf-8"))
    try:
        write_page(report, options.docs)
    except OutdatedReportError as error:
        sys.exit(f"{options.json}: {error}")
    for sentence in surprises(report) or ["The formats order as expected."]:
        print(sentence)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; says what is wrong with it and ends the program if need be."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.tokens is not None and options.tokens < 3:
        parser.error(f"--tokens is {options.tokens}; expected 3 or more")
    if not options.from_json:
        guide_tasks.check_checkpoint(parser)
    elif not options.json.is_file():
        parser.error(f"{options.json} is not a file; measure first, without --from-json")
    return options


def command(options: argparse.Namespace) -> str:
    """Returns the command line that measures the same; what is as by default is left out."""
    default = _parser().get_default
    given = vars(options)
    changed = (
        f"{flag} {given[name]}" for name, flag in FLAGS.items() if given[name] != default(name)
    )
    return " ".join((COMMAND, *changed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    positive = guide_tasks.positive
    parser.add_argument("-n", type=positive, default=200, help="examples of a task (200)")
    parser.add_argument("-t", "--threads", type=positive, default=machine.n_usable_cpus())
    parser.add_argument("-p", "--prompt", type=positive, default=512, help="tokens to prefill")
    parser.add_argument("-g", "--generate", type=positive, default=64, help="tokens to decode")
    parser.add_argument("--rounds", type=positive, default=7, help="of which the median counts")
    parser.add_argument("--tokens", type=positive, help="of the text, from its start; else all")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures are kept")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page and the plot")
    parser.add_argument("--from-json", action="store_true", help="only write the page anew")
    return parser


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what guide_formats.json holds."""
    about = machine.describe(options.threads)
    if busy := busy_text(about):
        print(busy)
    with tempfile.TemporaryDirectory() as folder:
        files = {type: Path(folder) / f"guide-{type}.gguf" for type in TYPES}
        formats: Formats = {}
        for type, path in files.items():
            written = quantize(guide_tasks.CHECKPOINT, path, type)
            formats[type] = {
                "type": type,
                "bytes": written.n_bytes,
                "bits_per_weight": written.bits_per_weight,
            }
        measure_speed(files, formats, options)
        quality = measure_quality(files, formats, options)
    return {
        "benchmark": "guide_formats",
        "command": command(options),
        "machine": about,
        "model": {"n_weights": written.n_weights},
        "options": {
            "n": options.n,
            "n_threads": options.threads,
            "n_prompt": options.prompt,
            "n_generated": options.generate,
            "rounds": options.rounds,
        },
        **quality,
        "formats": list(formats.values()),
    }


def measure_speed(files: Mapping[str, Path], formats: Formats, options: argparse.Namespace) -> None:
    """Adds prefill and decode rates; each round measures all formats, so that drift hits all."""
    with ExitStack() as stack:
        runtimes = {}
        for type, path in files.items():
            n_context = max(options.prompt, options.generate)
            runtime = open_runtime("edgeqwen", path, n_threads=options.threads, n_context=n_context)
            stack.callback(runtime.close)
            runtimes[type] = runtime
        # The first round only compiles kernels and brings in pages.
        for number in range(-1, options.rounds):
            for type, runtime in runtimes.items():
                time.sleep(SETTLE_S)
                rates = {
                    "prefill_tps": prefill_rate(runtime, options.prompt),
                    "decode_tps": decode_rate(runtime, options.generate),
                }
                if number >= 0:
                    for name, rate in rates.items():
                        formats[type].setdefault(f"{name}_rounds", []).append(rate)
            print(f"speed, round {number + 1} of {options.rounds}", flush=True)
    for figures in formats.values():
        for name in ("prefill_tps", "decode_tps"):
            figures[name] = statistics.median(figures[f"{name}_rounds"])


def prefill_rate(runtime: Runtime, n: int) -> float:
    """Returns tokens/s of reading n random tokens at once."""
    return _rate(runtime, n, lambda tokens: runtime.append(tokens))


def decode_rate(runtime: Runtime, n: int) -> float:
    """Returns tokens/s of reading n random tokens one by one, as they are generated."""

    def one_by_one(tokens: Sequence[int]) -> None:
        for token in tokens:
            runtime.append([token])

    return _rate(runtime, n, one_by_one)


def _rate(runtime: Runtime, n: int, read: Callable[[Sequence[int]], None]) -> float:
    tokens = Random(1).choices(range(runtime.vocab_size), k=n)
    runtime.truncate(0)
    began = time.perf_counter()
    read(tokens)
    return n / (time.perf_counter() - began)


def measure_quality(
    files: Mapping[str, Path], formats: Formats, options: argparse.Namespace
) -> dict[str, Any]:
    """Adds tasks, perplexity and divergence from F16; returns what concerns no single format.

    That is the number of the text's tokens, the tasks, and how formats of neighbouring sizes
    differ, which is computed here because the tokens' own values would fill many megabytes.
    """
    with ExitStack() as stack:
        models = {
            type: stack.enter_context(edgeqwen.load(path, n_threads=options.threads))
            for type, path in files.items()
        }
        tokens = models[REFERENCE].tokenizer.encode(held_out_text(), allow_special=True)
        tokens = tokens[: options.tokens]
        print(f"perplexity and KL divergence on {len(tokens)} tokens", flush=True)
        read = divergences(list(models.values()), models[REFERENCE], tokens)
        found = dict(zip(models, read, strict=True))
        for type, model in models.items():
            print(f"{type}: tasks", flush=True)
            answers = {score.name: score.answers for score in ask_all(model, TASKS, options.n)}
            formats[type] |= {**found[type].figures(), "answers": answers}
    return {
        "n_tokens": len(tokens),
        "tasks": [{"name": task.name, "title": task.title} for task in TASKS],
        "neighbours": [
            {"larger": larger, "smaller": smaller, **differences(found[larger], found[smaller])}
            for larger, smaller in neighbours(list(formats.values()))
        ],
    }


if __name__ == "__main__":
    main()
