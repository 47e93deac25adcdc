"""Encoders of every block type: errors and speed beside those of ggml's own, on one thread.

Writes the figures as JSON and, from that alone, docs/encoders.md; see benchmarks/README.md.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from benchmarks import ggml, guide_tasks, machine
from benchmarks.encoder_page import COMMAND, write_encoder_page
from benchmarks.encoder_samples import COLUMNS, Floats, Sample, random_samples, trained_samples
from benchmarks.guide_tasks import positive
from benchmarks.page_parts import DOCS, RESULTS, busy_text
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant import encode as ours
from edgeqwen.quant.decode import to_floats
from edgeqwen.quant.recipe import TENSOR_TYPES

FIGURES = RESULTS / "encoder_errors.json"
TYPES = [type for type in TENSOR_TYPES.values() if type.block_size > 1]
CHUNK_WEIGHTS = 1 << 16  # encoded at a time, as both converters do it, within the caches

Encoder = Callable[[GgmlType, Floats, NDArray[np.uint8], Floats | None], object]
ENCODERS: dict[str, Encoder] = {"edgeqwen": ours.encode, "ggml": ggml.encode}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, unless only the page is wanted, and writes the page."""
    options = parse(arguments)
    if not options.from_json:
        report = measure(options)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    report = json.loads(options.json.read_text(encoding="utf-8"))
    print(write_encoder_page(report, options.docs / "encoders.md"))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; says what is wrong with it and ends the program if need be."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--weights", type=positive, default=1 << 20, help="random ones (1 Mi)")
    parser.add_argument("--tokens", type=positive, default=40_000, help="of the imatrix's text")
    parser.add_argument("--rounds", type=positive, default=7, help="of which the median counts")
    parser.add_argument("--json", type=Path, default=FIGURES, help="where the figures are kept")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--from-json", action="store_true", help="only write the page anew")
    options = parser.parse_args(arguments)
    if not options.from_json:
        guide_tasks.check_checkpoint(parser)
    elif not options.json.is_file():
        parser.error(f"{options.json} is not a file; measure first, without --from-json")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what encoder_errors.json holds."""
    about = machine.describe()
    if busy := busy_text(about):
        print(busy)
    samples = random_samples(options.weights)
    trained = trained_samples(guide_tasks.CHECKPOINT, options.tokens, machine.n_usable_cpus())
    samples["trained"] = trained
    types = []
    for type in TYPES:
        errors = {name: compare_errors(type, of_kind) for name, of_kind in samples.items()}
        speed = compare_speed(type, samples["normal"][0], options.rounds)
        types.append({"type": type.name, "errors": errors, "speed": speed})
        print(f"{type.name}: done", flush=True)
    return {
        "benchmark": "encoder_errors",
        "command": f"{COMMAND} --weights {options.weights} --tokens {options.tokens} "
        f"--rounds {options.rounds}",
        "machine": about,
        "options": {"n_tokens": options.tokens, "rounds": options.rounds, "columns": COLUMNS},
        "n_weights": {
            name: sum(sample.weights.size for sample in of_kind)
            for name, of_kind in samples.items()
        },
        "types": types,
    }


def compare_errors(type: GgmlType, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Returns each encoder's errors, ``plain`` and ``weighted``, and under ``ratio`` ours / ggml's.

    Errors are mean squares over those of the weights, over all samples. In ``weighted``, encoders
    are given the importance of the columns, and squares are weighed by it.
    """
    found = {}
    for how in ("plain", "weighted"):
        totals = dict.fromkeys(ENCODERS, 0.0)
        power = 0.0
        for sample in samples:
            given = sample.importance if how == "weighted" else None
            weights = np.ones(1) if given is None else given.astype(np.float64)
            power += float((weights * sample.weights.astype(np.float64) ** 2).sum())
            for name, encoder in ENCODERS.items():
                out = encoded(encoder, type, sample.weights, given)
                error = decoded(type, out, sample.weights.shape) - sample.weights.astype(np.float64)
                totals[name] += float((weights * error**2).sum())
        relative = {name: total / power for name, total in totals.items()}
        found[how] = {**relative, "ratio": relative["edgeqwen"] / relative["ggml"]}
    return found


def compare_speed(type: GgmlType, sample: Sample, rounds: int) -> dict[str, Any]:
    """Returns weights/s of each encoder, ``plain`` and ``weighted``: medians, and all rounds."""
    found: dict[str, Any] = {}
    for how in ("plain", "weighted"):
        given = sample.importance if how == "weighted" else None
        rates: dict[str, list[float]] = {name: [] for name in ENCODERS}
        for number in range(-1, rounds):  # the first only compiles
            for name, encoder in ENCODERS.items():
                began = time.perf_counter()
                encoded(encoder, type, sample.weights, given)
                if number >= 0:
                    rates[name].append(sample.weights.size / (time.perf_counter() - began))
        medians = {name: median(values) for name, values in rates.items()}
        ratio = median(a / b for a, b in zip(rates["edgeqwen"], rates["ggml"], strict=True))
        found[how] = {**medians, "ratio": ratio, "rounds": rates}
    return found


def encoded(
    encoder: Encoder, type: GgmlType, weights: Floats, importance: Floats | None
) -> NDArray[np.uint8]:
    """Returns what an encoder makes of a matrix, uint8 [bytes], chunk by chunk."""
    rows, columns = weights.shape
    row_bytes = type.n_bytes((columns,))
    out = np.empty(rows * row_bytes, np.uint8)
    step = max(1, CHUNK_WEIGHTS // columns)
    for first in range(0, rows, step):
        chunk = weights[first : first + step]
        place = out[first * row_bytes : (first + len(chunk)) * row_bytes]
        if encoder(type, chunk, place, importance) is False:
            raise ValueError(f"{type.name}: weights that it can't hold")
    return out


def decoded(type: GgmlType, data: NDArray[np.uint8], shape: tuple[int, ...]) -> Floats:
    """Returns the weights that the bytes mean, by the same code for both encoders."""
    return to_floats(type, data, np.empty(math.prod(shape), np.float32)).reshape(shape)


if __name__ == "__main__":
    main()
