"""The screened head: does it ever miss a token, how much does it compute, and what does it save?

Compares the largest logits with those of the full product, for random and for adversarial hidden
states over random heads. Writes the figures as JSON and, from that alone, docs/screened-head.md;
see benchmarks/README.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.guide_tasks import positive
from benchmarks.page_parts import DOCS, RESULTS
from benchmarks.screened_page import COMMAND, write_screened_page
from benchmarks.screened_samples import HEADS, HIDDEN_STATES, Floats, SampleHead, pushed
from edgeqwen.cache.region import Region
from edgeqwen.engine import Engine
from edgeqwen.executor import Tape, Team
from edgeqwen.formats.packing import pack_rows
from edgeqwen.formats.screened import SCREENED
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_file import GgufFile
from edgeqwen.kernels.coarse import LOWEST
from edgeqwen.kernels.gemv import gemv
from edgeqwen.kernels.panels import PANELIZE, panelize
from edgeqwen.kernels.products import PRODUCT
from edgeqwen.kernels.state import STATE
from edgeqwen.model.chunks import tiles_per_chunk
from edgeqwen.model.screening import Screen, add_screen
from edgeqwen.model.wanted import Wanted
from edgeqwen.model.weights import Matrix
from edgeqwen.simd.isa import current_isa

FIGURES = RESULTS / "screened_head.json"
WANTED = (1, 20, 40)
"""How many of the largest logits are wanted, position by position in turn."""
PENALISED = 0.02  # of the tokens
PUSHES = (4, 8, 12, 16, 24)
SMALL = {GgmlType.Q8_0: (16384, 256), GgmlType.Q6_K: (16384, 256)}
TRUE = {GgmlType.Q8_0: (151936, 896), GgmlType.Q6_K: (151936, 1536)}
"""Rows and columns of heads; the true ones are those of Qwen2.5-0.5B and 1.5B."""


class Comparison:
    """A head packed for the screen, and two tapes: the screen, and the full product."""

    def __init__(self, head: SampleHead, n_threads: int = 1) -> None:
        format_, isa = SCREENED[head.type], current_isa()
        self.head, n_rows = head, len(head.rows)
        planned = Matrix((), format_, n_rows, head.n_columns, 0, 0)
        self._memory = Region(planned.apart_bytes + planned.n_bytes, purpose="a head", huge=True)
        address = self._memory.address + planned.apart_bytes
        self.matrix = matrix = Matrix((), format_, n_rows, head.n_columns, 0, address)
        rows = head.rows.reshape(-1)
        places = ((0, planned.apart_bytes), (planned.apart_bytes, planned.n_bytes))
        pack_rows(
            format_, rows, n_rows, 0, matrix.n_tiles, *(self._memory.view(*p) for p in places)
        )
        self.team = Team(n_threads)
        self.screen = Screen(matrix)
        self._x = np.zeros(head.n_columns, np.float32)
        self._logits = np.zeros((2, 16 * matrix.n_tiles), np.float32)
        tiling = format_.gemv_tiling(isa)
        self._state = np.zeros(1, STATE)
        self._state["n_tokens"] = 1
        self._panels = np.zeros(matrix.n_blocks * tiling.panel.block_bytes, np.uint8)
        self._screen_memory = np.zeros(self.screen.memory.n_bytes, np.uint8)
        self._screened, self._full = Tape(), Tape()
        panel = {
            "state": self._state.ctypes.data,
            "x": self._x.ctypes.data,
            "n_blocks": matrix.n_blocks,
            "panels": self._panels.ctypes.data,
        }
        for tape in (self._screened, self._full):
            tape.add(panelize, tiling.panel, PANELIZE, panel)
        add_screen(
            self._screened,
            self.screen,
            isa,
            n_threads,
            memory=self._screen_memory.ctypes.data,
            panels=self._panels.ctypes.data,
            logits=self._logits[0].ctypes.data,
        )
        per_chunk = tiles_per_chunk(matrix, tiling, n_threads)
        product = {
            "state": self._state.ctypes.data,
            "weights": matrix.address,
            "n_blocks": matrix.n_blocks,
            "n_tiles": matrix.n_tiles,
            "ranges": 1,
            "tiles_per_chunk": per_chunk,
            "panels": self._panels.ctypes.data,
            "panels_of_worker": 0,
            "output": self._logits[1].ctypes.data,
            "stride": 0,
            "bias": 0,
            "accumulate": 0,
            "scratch": 0,
            "scratch_bytes": 0,
        }
        chunks = -(-matrix.n_tiles // per_chunk)
        self._full.add(gemv, tiling, PRODUCT, product, chunks=chunks)
        for tape in (self._screened, self._full):
            tape.finish()

    def run(self, x: Floats, wanted: Wanted) -> tuple[Floats, Floats]:
        """Returns the logits, screened and in full: float32 [n_rows], views until the next run."""
        self._x[:] = x
        self.screen.ask(wanted)
        self.team.run(self._screened, 1, 1)
        self.team.run(self._full, 1, 1)
        screened, full = self._logits[:, : len(self.head.rows)]
        return screened, full

    def close(self) -> None:
        self.team.close()
        self._memory.close()


def missed(screened: Floats, full: Floats, wanted: Wanted) -> NDArray[np.intp]:
    """Returns the rows whose logits are among the k largest after penalties, and not there."""
    values = full.astype(np.float64)
    ids, repetition = np.flatnonzero(wanted.penalised), wanted.repetition
    some = values[ids]
    values[ids] = np.where(some > 0, some / repetition, some * repetition) - wanted.subtracted
    # With all that are equal to the last.
    needed = np.flatnonzero(values >= np.partition(values, -wanted.k)[-wanted.k])
    rows: NDArray[np.intp] = needed[screened[needed] != full[needed]]
    return rows


def compare(head: SampleHead, kind: str, n: int, seed: int = 0) -> dict[str, Any]:
    """Returns what ``n`` hidden states of a kind give: misses, wrong logits, and tiles computed."""
    rng = np.random.default_rng([seed, list(HIDDEN_STATES).index(kind)])
    penalised = (rng.random(len(head.rows)) < PENALISED).astype(np.uint8)
    found = {"missed": 0, "wrong": 0, "all_computed": 0}
    computed = np.zeros(n)
    with ExitStack() as stack:
        comparison = Comparison(head)
        stack.callback(comparison.close)
        for i in range(n):
            wanted = Wanted(WANTED[i % len(WANTED)], penalised, (1.0, 1.1)[i % 2])
            x = HIDDEN_STATES[kind](head, rng)
            screened, full = comparison.run(x, wanted)
            there = screened != np.float32(LOWEST)
            found["missed"] += bool(len(missed(screened, full, wanted)))
            found["wrong"] += bool((screened[there] != full[there]).any())
            computed[i] = np.mean(there)
            found["all_computed"] += bool(there.all())
    return {
        "head": head.kind,
        "type": head.type.name,
        "rows": len(head.rows),
        "columns": head.n_columns,
        "hidden_states": kind,
        "positions": n,
        **found,
        "mean_computed": float(computed.mean()),
        "largest_computed": float(computed.max()),
    }


def push(head: SampleHead, deviations: float, n: int) -> dict[str, Any]:
    """Returns how often a row is missed that its low bits push among the 20 largest."""
    rng = np.random.default_rng([1, round(deviations)])
    wanted = Wanted(20, np.zeros(len(head.rows), np.uint8))
    among, n_missed = 0, 0
    with ExitStack() as stack:
        comparison = Comparison(head)
        stack.callback(comparison.close)
        for _ in range(n):
            x, row = pushed(head, rng, deviations)
            screened, full = comparison.run(x, wanted)
            among += bool(full[row] >= np.partition(full, -wanted.k)[-wanted.k])
            n_missed += row in missed(screened, full, wanted)
    return {"deviations": deviations, "positions": n, "among": among, "missed": n_missed}


def step_times(path: Path, n_threads: int, n_steps: int) -> dict[str, Any]:
    """Returns the seconds of single steps with and without a screen, in turns, and tiles computed.

    Random tokens of a model, with the sampler's defaults. Where one thread computes, the seconds
    are the processor's, so that other processes count for less.
    """
    clock = time.thread_time if n_threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {"full": [], "screened": []}
    computed = []
    with ExitStack() as stack:
        file = stack.enter_context(GgufFile.open(path))
        engines, sequences = {}, {}
        for name in seconds:
            engine = Engine(
                file, n_threads=n_threads, max_context=n_steps + 8, full_head=name == "full"
            )
            stack.callback(engine.close)
            engines[name], sequences[name] = engine, engine.new_sequence()
            stack.callback(sequences[name].close)
        n_rows = engines["full"].config.vocab_size
        rng = np.random.default_rng(0)
        wanted = Wanted(20, np.zeros(n_rows, np.uint8), 1.05)
        for step in range(n_steps + 4):
            token = int(rng.integers(n_rows))
            for name, engine in engines.items():
                began = clock()
                logits = engine.decode(sequences[name], token, wanted)
                # The first step records, and others warm up.
                if step >= 4:
                    seconds[name].append(clock() - began)
            if step >= 4:
                computed.append(float(np.mean(logits != np.float32(LOWEST))))
    return {
        "model": path.name,
        "n_threads": n_threads,
        "seconds": seconds,
        "mean_computed": float(np.mean(computed)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, unless only the page is wanted, and writes the page."""
    options = parse(arguments)
    if not options.from_json:
        report = measure(options)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    report = json.loads(options.json.read_text(encoding="utf-8"))
    print(write_screened_page(report, options.docs / "screened-head.md"))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "--positions", type=positive, default=1_050_000, help="over small heads, in all"
    )
    parser.add_argument(
        "--true", type=positive, default=960, help="positions over heads of true size, in all"
    )
    parser.add_argument("--pushed", type=positive, default=5000, help="positions for each push")
    parser.add_argument("--model", type=Path, help="a GGUF file whose steps are timed as well")
    parser.add_argument("-t", "--threads", type=positive, default=1, help="for the model (1)")
    parser.add_argument("--steps", type=positive, default=100, help="of the model (100)")
    parser.add_argument("--json", type=Path, default=FIGURES, help="where the figures are kept")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--from-json", action="store_true", help="only write the page anew")
    options = parser.parse_args(arguments)
    if options.from_json and not options.json.is_file():
        parser.error(f"{options.json} is not a file; measure first, without --from-json")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what screened_head.json holds."""
    report: dict[str, Any] = {
        "command": f"{COMMAND} --positions {options.positions} --true {options.true} "
        f"--pushed {options.pushed}",
        "machine": machine.describe(),
        "comparisons": [],
        "pushes": [],
        "steps": [],
    }
    if options.model is not None:
        report["command"] += f" --model {options.model.name} -t {options.threads}"
        report["steps"].append(step_times(options.model, options.threads, options.steps))
    for sizes, total in ((SMALL, options.positions), (TRUE, options.true)):
        n = -(-total // (len(sizes) * len(HEADS) * len(HIDDEN_STATES)))
        for type_, (n_rows, n_columns) in sizes.items():
            for i, kind in enumerate(HEADS):
                head = SampleHead.make(kind, type_, n_rows, n_columns, np.random.default_rng(i))
                for hidden in HIDDEN_STATES:
                    report["comparisons"].append(compare(head, hidden, n))
                    print(json.dumps(report["comparisons"][-1]), flush=True)
    n_rows, n_columns = SMALL[GgmlType.Q8_0]
    head = SampleHead.make("normal", GgmlType.Q8_0, n_rows, n_columns, np.random.default_rng(0))
    report["pushes"] = [push(head, deviations, options.pushed) for deviations in PUSHES]
    return report


if __name__ == "__main__":
    main()
