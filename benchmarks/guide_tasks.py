"""How many held-out examples of every task a model answers right; see benchmarks/README.md.

Without MODEL it is the checkpoint of the built-in model, in F16.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import edgeqwen
from benchmarks import machine
from benchmarks.task_scores import (
    GROUPS,
    Score,
    ask_all,
    goal_of,
    goal_text,
    share,
    wilson_interval,
)
from edgeqwen.quant import quantize
from tools.guide_model.corpus.mixture import TASKS

CHECKPOINT = machine.ROOT / "tools" / "guide_model" / "edgeqwen-guide"


def main(arguments: Sequence[str] | None = None) -> None:
    """Asks what the command line wants asked, and prints a table of tasks and one of groups."""
    options = parse(arguments)
    about = machine.describe(options.threads)
    with model_file(options.model) as path:
        name = path.name
        with edgeqwen.load(path, n_threads=options.threads) as model:
            print(f"{name}: held-out examples; right is word for word the expected answer")
            print(heading("task"))
            scores = ask_all(
                model,
                TASKS,
                options.n,
                ready=lambda score: print(row(score, goal_of(score.name)), flush=True),
            )
    print(f"\n{heading('together')}")
    for group in GROUPS:
        print(row(group.total(scores), group.goal))
    for score in scores:
        show_wrong(score, options.wrong)
    if options.json:
        report: dict[str, Any] = {
            "benchmark": "guide_tasks",
            "machine": about,
            "model": {"file": name},
            "options": {"n": options.n, "n_threads": options.threads},
            "tasks": [score.figures() for score in scores],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; says what is wrong with it and ends the program if need be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guide_tasks", description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="a GGUF file")
    parser.add_argument("-n", type=positive, default=200, help="examples of a task (200)")
    parser.add_argument("-t", "--threads", type=positive, default=machine.n_usable_cpus())
    parser.add_argument(
        "--wrong", type=int, default=0, metavar="K", help="show K wrong answers of every task"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.wrong < 0:
        parser.error(f"--wrong is {options.wrong}; it counts answers, from 0")
    if options.model and not options.model.is_file():
        parser.error(f"{options.model} is not a file")
    if not options.model:
        check_checkpoint(parser)
    return options


def positive(text: str) -> int:
    """Reads a number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def check_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Ends the program if the built-in model's checkpoint isn't there."""
    if not (CHECKPOINT / "config.json").is_file():
        parser.error(
            f"{CHECKPOINT} holds no checkpoint (no config.json): make it with "
            "python -m tools.guide_model"
        )


@contextmanager
def model_file(given: Path | None) -> Iterator[Path]:
    """Gives the file to measure: the given one, or the checkpoint in F16, removed after."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guide-f16.gguf"
        quantize(CHECKPOINT, path, "f16")
        yield path


def heading(first: str) -> str:
    """Returns the line above a table of scores."""
    return f"{first:44}{'right':>7}{'of':>6}{'%':>8}   95 % interval"


def row(score: Score, goal: float | None) -> str:
    """Returns a score as a line of the table, beside its goal if it has one."""
    low, high = wilson_interval(score.right, score.n)
    figures = f"{score.right:7}{score.n:6}{100 * share(score):8.1f}"
    line = f"{score.title:44}{figures}   {100 * low:.1f} to {100 * high:.1f}"
    return line if goal is None else f"{line:82}  goal {goal_text(score, goal)}"


def show_wrong(score: Score, k: int) -> None:
    """Prints the first k wrong answers of a task; … ends one that was cut."""
    if score.wrong[:k]:
        print(f"\nwrong: {score.title}")
    for wrong in score.wrong[:k]:
        print(f"  asked     {wrong.question!r}")
        print(f"  expected  {wrong.expected!r}")
        print(f"  answered  {wrong.answer!r}")


if __name__ == "__main__":
    main()
