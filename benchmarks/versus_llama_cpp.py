"""edgeqwen against llama.cpp: the same file, the same threads, turn by turn in one run.

Each runtime has a process of its own and sleeps while the other measures. Both are warmed up at
full length first; then every round measures A, B, A, B, ..., and medians over the rounds and
their ratios are printed. See benchmarks/README.md.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from benchmarks.runtimes import NAMES
from benchmarks.synthetic import SHAPES, TYPES, model_file
from benchmarks.worker import Worker

SETTLE_S = 0.2  # a thread team may spin for a moment after its last task
FIRST_PROMPT = 16  # tokens read until the first token, in the measurement of loading
# What is better when it is larger; of the rest, less is better.
RATES = ("prefill_tps", "decode_tps")
TITLES = {
    "prefill_tps": "prefill, tokens/s",
    "decode_tps": "decode, tokens/s",
    "load_s": "load, s",
    "first_token_s": "load to first token, s",
    "peak_rss_bytes": "peak memory, MB",
}
Rounds = dict[str, dict[str, list[float]]]  # by runtime, by figure


class Sizes(Protocol):
    """Tokens of a prefill, of a decode, and in the cache before either."""

    @property
    def prompt(self) -> int: ...
    @property
    def generate(self) -> int: ...
    @property
    def depth(self) -> int: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison that the command line asks for."""
    options = parse(arguments)
    about = machine.describe(options.threads)  # before a model is made, which is work
    path = options.model or model_file(options.shape, options.type)
    print(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, {options.threads} threads")
    print(f"{about['cpu']}, reads {about['read_gb_per_s']} GB/s, commit {about['commit']}")
    if about["load_average"] > machine.BUSY:
        print(
            f"The machine is busy (load average {about['load_average']}): these figures are not "
            "fit to quote. llama.cpp's threads spin for one another and lose most by it."
        )

    rounds: Rounds = {name: {} for name in NAMES}
    with Worker(NAMES[0]) as first, Worker(NAMES[1]) as second:
        for worker in (first, second):
            warm_up(worker, path, options)
        for number in range(options.rounds):
            for worker in (first, second):
                measure(worker, rounds[worker.runtime], options)
            show_round(number, rounds)
    for _ in range(options.rounds):
        for name in NAMES:
            measure_load(name, path, rounds[name], options)

    result = summary(rounds)
    show(result)
    if options.json:
        report = {
            "benchmark": "versus_llama_cpp",
            "machine": about | {"llama_cpp_features": llama_cpp_features()},
            "model": {"file": path.name, "bytes": path.stat().st_size},
            "options": {
                "n_threads": options.threads,
                "n_prompt": options.prompt,
                "n_generated": options.generate,
                "depth": options.depth,
                "rounds": options.rounds,
                "n_prompt_of_first_token": FIRST_PROMPT,
            },
            **result,
            "rounds": rounds,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; says what is wrong with it and ends the program if need be."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", type=Path, help="a GGUF file to measure with")
    source.add_argument(
        "--shape",
        choices=sorted(SHAPES),
        default="0.5B",
        help="instead of a file: random weights in this true shape, made once (default 0.5B)",
    )
    parser.add_argument("--type", choices=TYPES, default="q4_0", help="of the random weights")
    parser.add_argument("-t", "--threads", type=_positive, default=machine.n_usable_cpus())
    parser.add_argument("-p", "--prompt", type=_positive, default=512, help="tokens to prefill")
    parser.add_argument("-n", "--generate", type=_positive, default=64, help="tokens to decode")
    parser.add_argument("-d", "--depth", type=int, default=0, help="tokens in the cache before")
    parser.add_argument("--rounds", type=_positive, default=5)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    if options.depth < 0:
        parser.error(f"--depth is {options.depth}; it counts tokens, from 0")
    if options.model and not options.model.is_file():
        parser.error(f"--model {options.model} is not a file")
    return options


def warm_up(worker: Worker, path: Path, options: argparse.Namespace) -> None:
    """Opens the file and runs everything once at full length: kernels compile, pages come in."""
    worker.open(path, n_prompt=FIRST_PROMPT, **_limits(options))
    worker.prefill(options.depth, options.prompt)
    worker.decode(options.depth, options.generate)


def measure(worker: Worker, figures: dict[str, list[float]], options: Sizes) -> None:
    """Adds one round of prefill and decode of one runtime."""
    time.sleep(SETTLE_S)
    seconds = worker.prefill(options.depth, options.prompt)
    figures.setdefault("prefill_tps", []).append(options.prompt / seconds)
    seconds = worker.decode(options.depth, options.generate)
    figures.setdefault("decode_tps", []).append(options.generate / seconds)


def measure_load(
    name: str, path: Path, figures: dict[str, list[float]], options: argparse.Namespace
) -> None:
    """Adds one loading of the file in a fresh process; its pages and kernels are cached by now."""
    time.sleep(SETTLE_S)
    with Worker(name) as worker:
        answer = worker.open(path, n_prompt=FIRST_PROMPT, **_limits(options))
    for figure, value in answer.items():
        figures.setdefault(figure, []).append(value)


def summary(rounds: Rounds) -> dict[str, Any]:
    """Returns the medians by runtime and, under ``ratio``, the first one's over the second's."""
    medians = {
        name: {figure: statistics.median(values) for figure, values in figures.items()}
        for name, figures in rounds.items()
    }
    ours, theirs = medians.values()
    return {**medians, "ratio": {figure: ours[figure] / theirs[figure] for figure in ours}}


def show_round(number: int, rounds: Rounds) -> None:
    """Prints one line for the round that just ended."""
    parts = [
        f"{name} {rounds[name]['prefill_tps'][-1]:.1f} / {rounds[name]['decode_tps'][-1]:.2f}"
        for name in NAMES
    ]
    print(f"round {number + 1}, prefill / decode tokens/s: " + ", ".join(parts), flush=True)


def show(result: dict[str, Any]) -> None:
    """Prints the table of medians and ratios."""
    print(f"\n{'median':24}{NAMES[0]:>12}{NAMES[1]:>12}{'ratio':>9}")
    for figure, ratio in result["ratio"].items():
        unit = 1e6 if figure == "peak_rss_bytes" else 1.0
        ours, theirs = (result[name][figure] / unit for name in NAMES)
        better = "" if figure in RATES else "  (less is better)"
        print(f"{TITLES[figure]:24}{ours:12.2f}{theirs:12.2f}{ratio:9.2f}{better}")


def llama_cpp_features() -> str:
    """Returns what llama.cpp was built to use, without which its figures mean little."""
    from benchmarks.llama import system_info

    return system_info()


def _limits(options: argparse.Namespace) -> dict[str, int]:
    n_context = options.depth + max(options.prompt, options.generate, FIRST_PROMPT)
    return {"n_threads": options.threads, "n_context": n_context}


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


if __name__ == "__main__":
    main()
