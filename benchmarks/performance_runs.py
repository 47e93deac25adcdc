"""The parts of the performance benchmark: each measures one thing of one model file, in turns.

A part returns its figures as JSON has them, or None where there is nothing to measure (yet).
"""

import argparse
import inspect
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.first_token import time_first_token
from benchmarks.runtimes import NAMES
from benchmarks.spinner import busy_process
from benchmarks.versus_llama_cpp import FIRST_PROMPT, SETTLE_S, Rounds, measure, summary
from benchmarks.worker import Worker
from edgeqwen.model.work import Work
from edgeqwen.roofline import roofline

About = Mapping[str, Any]  # what ``machine.describe`` returned
Figures = dict[str, Any] | None
PACKED = "edgeqwen, packed file"


@dataclass(frozen=True, slots=True)
class Cell:
    """Tokens of a prefill, of a decode, and in the cache before either."""

    prompt: int
    generate: int
    depth: int


def table(path: Path, options: argparse.Namespace, about: About) -> Figures:
    """Prefill and decode from the beginning and deep in a context, with shares of the limits."""
    cells = _cells(options, [0, options.deep])
    return {"cells": compare(path, cells, options.threads, options.rounds, about)}


def depth(path: Path, options: argparse.Namespace, about: About) -> Figures:
    """Prefill and decode at several depths."""
    cells = _cells(options, options.depths)
    return {"cells": compare(path, cells, options.threads, options.rounds, about)}


def threads(path: Path, options: argparse.Namespace, about: About) -> Figures:
    """Prefill and decode by the number of threads."""
    cells = []
    for n in options.thread_counts:
        (cell,) = compare(path, _cells(options, [0]), n, options.rounds)
        cells.append({"n_threads": n, **cell})
    return {"cells": cells}


def start(path: Path, options: argparse.Namespace, about: About) -> Figures:
    """The first token of a Python process, from the process's start, and the memory it takes."""
    contestants = {name: (name, path) for name in NAMES}
    if packed := packed_file(path):
        contestants = {NAMES[0]: contestants[NAMES[0]], PACKED: (NAMES[0], packed), **contestants}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    # The first round compiles kernels and brings the file into the page cache.
    for number in range(-1, options.rounds):
        for name, (runtime, file) in contestants.items():
            time.sleep(SETTLE_S)
            found = time_first_token(runtime, file, options.threads)
            if number >= 0:
                rounds[name].append(found)
    return {
        "contestants": {
            name: {
                "first_token_s": statistics.median(run["first_token_s"] for run in runs),
                "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs),
                "private_bytes": runs[-1]["private_bytes"],
                "rounds": runs,
            }
            for name, runs in rounds.items()
        }
    }


def busy(path: Path, options: argparse.Namespace, about: About) -> Figures:
    """Decode beside another process that never rests, as a share of decode on an idle machine."""
    neighbours: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "idle": nullcontext,
        "unpinned": busy_process,
    }
    if hasattr(machine.os, "sched_setaffinity"):
        cpu = max(machine.os.sched_getaffinity(0))
        neighbours["pinned"] = lambda: busy_process(cpu)
    n = options.busy_tokens
    rounds: dict[str, dict[str, list[float]]] = {
        condition: {name: [] for name in NAMES} for condition in neighbours
    }
    with open_workers(path, options.threads, max(n, FIRST_PROMPT)) as workers:
        for worker in workers.values():
            worker.decode(0, n)
        for _ in range(options.rounds):
            for condition, neighbour in neighbours.items():
                with neighbour():
                    for name, worker in workers.items():
                        time.sleep(SETTLE_S)
                        rounds[condition][name].append(n / worker.decode(0, n))
    medians = {
        condition: {name: statistics.median(values) for name, values in by_name.items()}
        for condition, by_name in rounds.items()
    }
    return {
        "n_generated": n,
        "decode_tps": medians,
        "of_idle": {
            condition: {name: tps / medians["idle"][name] for name, tps in found.items()}
            for condition, found in medians.items()
            if condition != "idle"
        },
        "rounds": rounds,
    }


def head(path: Path, options: argparse.Namespace, about: About) -> Figures:
    """Decode with the output matrix screened, and in full; None where edgeqwen doesn't screen."""
    if not screens_the_head():
        return None
    n = options.generate
    loads = {"screened": {}, "full": {"full_head": True}}
    rounds: Rounds = {name: {} for name in loads}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(NAMES[0])) for name in loads}
        limits = {"n_threads": options.threads, "n_context": max(n, FIRST_PROMPT)}
        for name, worker in workers.items():
            worker.open(path, n_prompt=FIRST_PROMPT, load=loads[name], **limits)
            worker.decode(0, n)
        for _ in range(options.rounds):
            for name, worker in workers.items():
                time.sleep(SETTLE_S)
                rounds[name].setdefault("decode_tps", []).append(n / worker.decode(0, n))
    return {"n_generated": n, **summary(rounds), "rounds": rounds}


def compare(
    path: Path,
    cells: Sequence[Cell],
    n_threads: int,
    n_rounds: int,
    about: About | None = None,
) -> list[dict[str, Any]]:
    """Lets both runtimes measure each cell in turns, one cell after the other.

    Returns for each its sizes, medians by runtime, their ``ratio`` and all rounds; with ``about``,
    also ``roofline``, edgeqwen's share of what that machine reaches.
    """
    n_context = max(cell.depth + max(cell.prompt, cell.generate, FIRST_PROMPT) for cell in cells)
    found = []
    with open_workers(path, n_threads, n_context) as workers:
        for cell in cells:
            rounds: Rounds = {name: {} for name in workers}
            # The first round, of full length, compiles kernels and brings in pages.
            for number in range(-1, n_rounds):
                for name, worker in workers.items():
                    measure(worker, rounds[name] if number >= 0 else {}, cell)
            sizes = {"n_prompt": cell.prompt, "n_generate": cell.generate, "depth": cell.depth}
            found.append({**sizes, **summary(rounds), "rounds": rounds})
            _show(path, n_threads, found[-1])
            if about is not None:
                found[-1]["roofline"] = shares(workers[NAMES[0]].work(), about, found[-1])
    return found


@contextmanager
def open_workers(path: Path, n_threads: int, n_context: int) -> Iterator[dict[str, Worker]]:
    """Opens a file with each runtime, by its name."""
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name)) for name in NAMES}
        for worker in workers.values():
            worker.open(path, n_threads=n_threads, n_context=n_context, n_prompt=FIRST_PROMPT)
        yield workers


def shares(work: Mapping[str, int], about: About, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what ``edgeqwen.roofline.roofline`` does, from what JSON holds."""
    limits = {
        "read_bytes_per_s": about["read_gb_per_s"] * 1e9,
        "integer_macs_per_s": about["integer_gmac_per_s"] * 1e9,
        "float_macs_per_s": about["float_gmac_per_s"] * 1e9,
    }
    return roofline(Work(**work), limits, {**cell, **cell[NAMES[0]]}, depth=cell["depth"])


def screens_the_head() -> bool:
    """Whether this edgeqwen can leave out most of the output matrix, and be told not to."""
    import edgeqwen

    return "full_head" in inspect.signature(edgeqwen.load).parameters


def packed_file(source: Path) -> Path | None:
    """Returns what ``edgeqwen pack`` makes of a file; None where there is no such command.

    It lies beside the source, and is made anew each time: its layout changes with edgeqwen.
    """
    from edgeqwen.cli.app import app

    if "pack" not in {command.name for command in app.registered_commands}:
        return None
    packed = source.with_name(f"{source.stem}-packed.gguf")
    subprocess.run(
        [sys.executable, "-m", "edgeqwen", "pack", str(source), "-o", str(packed)], check=True
    )
    return packed


def _cells(options: argparse.Namespace, depths: Sequence[int]) -> list[Cell]:
    return [Cell(options.prompt, options.generate, depth) for depth in depths]


def _show(path: Path, n_threads: int, cell: Mapping[str, Any]) -> None:
    """Prints what was measured, for those who wait."""
    parts = [
        f"{title} {cell[NAMES[0]][figure]:.1f} and {cell[NAMES[1]][figure]:.1f} tokens/s"
        f" (ratio {cell['ratio'][figure]:.2f})"
        for title, figure in (("prefill", "prefill_tps"), ("decode", "decode_tps"))
    ]
    where = f"{path.name}, {n_threads} threads, at {cell['depth']}"
    print(f"{where}: {', '.join(parts)}", flush=True)
