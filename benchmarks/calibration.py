"""What an importance matrix and calibration gain: the built-in model in every lossy recipe.

Writes the figures as JSON and, from that alone, docs/calibration.md and docs/calibration.svg; see
benchmarks/README.md.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import edgeqwen
from benchmarks import guide_tasks, machine
from benchmarks.calibration_page import COMMAND, write_calibration_page
from benchmarks.calibration_text import training_text
from benchmarks.divergence import Divergence, divergences
from benchmarks.guide_tasks import positive
from benchmarks.page_parts import DOCS, RESULTS, busy_text
from edgeqwen import Model
from edgeqwen.guide import held_out_text
from edgeqwen.importance import collect
from edgeqwen.likelihood import Estimate, Floats, mean_and_error
from edgeqwen.quant import TYPES, QuantizeReport, quantize

FIGURES = RESULTS / "calibration.json"
RECIPES = tuple(type for type in TYPES if type not in ("f32", "f16", "bf16"))
WARM_UP_TOKENS = 64  # the fewest that calibration takes: enough to compile its kernels


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, unless only the page is wanted, and writes the page."""
    options = parse(arguments)
    if not options.from_json:
        report = measure(options)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    report = json.loads(options.json.read_text(encoding="utf-8"))
    print(write_calibration_page(report, options.docs))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; says what is wrong with it and ends the program if need be."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("-t", "--threads", type=positive, default=machine.n_usable_cpus())
    parser.add_argument(
        "--text-tokens", type=positive, default=40_000, help="of the text that is calibrated on"
    )
    parser.add_argument("--tokens", type=positive, help="of the held-out text; else all")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--json", type=Path, default=FIGURES, help="where the figures are kept")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page and the plot")
    parser.add_argument("--from-json", action="store_true", help="only write the page anew")
    options = parser.parse_args(arguments)
    if options.tokens is not None and options.tokens < 3:
        parser.error(f"--tokens is {options.tokens}; expected 3 or more")
    if options.text_tokens < 512:
        parser.error(f"--text-tokens is {options.text_tokens}; expected 512 or more, a window")
    if not options.from_json:
        guide_tasks.check_checkpoint(parser)
    elif not options.json.is_file():
        parser.error(f"{options.json} is not a file; measure first, without --from-json")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what calibration.json holds."""
    about = machine.describe(options.threads)
    if busy := busy_text(about):
        print(busy)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        reference_file = folder / "f16.gguf"
        quantize(guide_tasks.CHECKPOINT, reference_file, "f16")
        reference = stack.enter_context(edgeqwen.load(reference_file, n_threads=options.threads))
        held_out = reference.tokenizer.encode(held_out_text(), allow_special=True)[: options.tokens]
        text, read = training_text(reference.tokenizer, options.text_tokens)
        began = time.perf_counter()
        imatrix = collect(reference, read)
        imatrix_s = time.perf_counter() - began
        methods: dict[str, dict[str, Any]] = {
            "plain": {},
            "imatrix": {"imatrix": imatrix},
            "calibrate": {"calibrate": text, "calibrate_tokens": len(read)},
        }
        recipes = []
        for recipe in options.recipes:
            files = convert(recipe, methods, folder, options.threads)
            found = differences(list(files.values()), reference, held_out, options.threads)
            recipes.append(of_recipe(recipe, dict(zip(files, found, strict=True)), files))
            print(f"{recipe}: done", flush=True)
    return {
        "benchmark": "calibration",
        "command": f"{COMMAND} -t {options.threads} --text-tokens {options.text_tokens}",
        "machine": about,
        "n_tokens": len(held_out),
        "n_text_tokens": len(read),
        "imatrix_s": imatrix_s,
        "recipes": recipes,
    }


def convert(
    recipe: str, methods: Mapping[str, Mapping[str, Any]], folder: Path, n_threads: int
) -> dict[str, QuantizeReport]:
    """Writes a file by each method, in the folder; returns the reports."""
    reports = {}
    for method, options in methods.items():
        path = folder / f"{method}.gguf"
        if "calibrate" in options:
            few = {**options, "calibrate_tokens": WARM_UP_TOKENS}
        else:
            few = dict(options)
        # Kernels are compiled when they are first used, which is no part of converting.
        for given in (few, options):
            reports[method] = quantize(
                guide_tasks.CHECKPOINT, path, recipe, n_threads=n_threads, **given
            )
    return reports


def differences(
    reports: Sequence[QuantizeReport], reference: Model, tokens: Sequence[int], n_threads: int
) -> list[Divergence]:
    """Returns how far each file's predictions of a text are from the reference's."""
    with ExitStack() as stack:
        models = [
            stack.enter_context(edgeqwen.load(report.output, n_threads=n_threads))
            for report in reports
        ]
        return divergences(models, reference, tokens)


def of_recipe(
    recipe: str, found: Mapping[str, Divergence], reports: Mapping[str, QuantizeReport]
) -> dict[str, Any]:
    """Returns the figures of a recipe: those of each method, and ratios to ``plain``."""
    methods = {}
    for method, divergence in found.items():
        ratio, ratio_se = ratio_of_means(divergence.kl, found["plain"].kl)
        methods[method] = {
            **divergence.figures(),
            "kl_ratio": ratio,
            "kl_ratio_se": ratio_se,
            "seconds": reports[method].seconds,
            "bytes": reports[method].n_bytes,
            "bits_per_weight": reports[method].bits_per_weight,
        }
    return {"type": recipe, "methods": methods}


def ratio_of_means(a: Floats, b: Floats) -> Estimate:
    """Returns mean(a) / mean(b) of two values for each token, [n] each, and its standard error.

    It is the delta method's, from the residuals a - ratio b: what is hard for both cancels. Tokens
    are taken as independent.
    """
    mean = float(b.mean())
    ratio = float(a.mean()) / mean
    return Estimate(ratio, mean_and_error((a - ratio * b) / mean).se)


if __name__ == "__main__":
    main()
