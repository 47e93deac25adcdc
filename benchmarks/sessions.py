"""Sessions and kept prompts: what they cost, and what reading again would.

    python -m benchmarks.sessions

writes benchmarks/results/sessions.json and docs/session-speed.md, in ten minutes or so. It needs
the extras ``test`` and ``peers``. Each figure comes from a process of its own
(benchmarks/session_steps.py); opening is measured in several, and the median counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, describe, n_usable_cpus
from benchmarks.page_parts import DOCS, RESULTS, busy_text, origin_text, table, write_page
from benchmarks.session_steps import ANSWER_TOKENS
from benchmarks.synthetic import model_file

LONG, SHORT = 30_000, 4_000
OPENINGS = 5
FIGURES = "sessions.json"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, add_help=True)
    options.add_argument("-t", "--threads", type=int, default=n_usable_cpus())
    options.add_argument("--shape", default="0.5B")
    options.add_argument("--type", default="q4_0")
    options.add_argument("--tokens", type=int, default=LONG, help="of the long session")
    chosen = options.parse_args()
    report = {
        "command": "python -m benchmarks.sessions",
        "machine": describe(chosen.threads),
        "shape": chosen.shape,
        "type": chosen.type,
        **measure(model_file(chosen.shape, chosen.type), chosen.tokens, chosen.threads),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / FIGURES).write_text(json.dumps(report, indent=1) + "\n")
    write_page(page(report), DOCS / "session-speed.md")


def measure(model: Path, n_long: int, n_threads: int) -> dict[str, Any]:
    """Returns the figures of all steps by name."""
    # On a disk: a folder of temporary files may be in memory.
    with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="sessions-") as folder:

        def step(name: str, file: str, n_tokens: int) -> dict[str, Any]:
            place = file if name == "prompt" else str(Path(folder) / file)
            return run_step(name, model, place, n_tokens, n_threads)

        def openings(file: str, n_tokens: int) -> dict[str, float]:
            return medians([step("open", file, n_tokens) for _ in range(OPENINGS)])

        found: dict[str, Any] = {"n_long": n_long, "n_short": SHORT}
        for name, n_tokens in (("long", n_long), ("short", SHORT)):
            found[f"make_{name}"] = step("make", f"{name}.session", n_tokens)
            found[f"open_{name}"] = openings(f"{name}.session", n_tokens)
        found["save"] = step("save", "save.session", 512)
        with tempfile.TemporaryDirectory() as prompts:
            os.environ["EDGEQWEN_CACHE_DIR"] = prompts
            kernels = user_kernels()
            Path(prompts, "kernels").symlink_to(kernels, target_is_directory=True)
            found["prompt_first"] = step("prompt", "What is this about?", SHORT)
            again = [step("prompt", f"Question {i}?", SHORT) for i in range(OPENINGS)]
            found["prompt_again"] = medians(again)
            del os.environ["EDGEQWEN_CACHE_DIR"]
        found["llama"] = step("llama", "llama.state", SHORT)
    return found


def user_kernels() -> Path:
    """Returns where compiled kernels are kept, which a cache of prompts alone needs, too."""
    from edgeqwen.folders import user_cache

    return user_cache() / "kernels"


def run_step(name: str, model: Path, file: str, n_tokens: int, n_threads: int) -> dict[str, Any]:
    """Runs a step in a process of its own and returns what it printed."""
    command = [sys.executable, "-m", "benchmarks.session_steps", name, str(model), file]
    done = subprocess.run(
        [*command, str(n_tokens), str(n_threads)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def page(report: dict[str, Any]) -> str:
    """Returns docs/session-speed.md."""
    llama = report["llama"]
    rows = []
    for name in ("long", "short"):
        made, opened = report[f"make_{name}"], report[f"open_{name}"]
        rows.append(
            [
                f"{report[f'n_{name}']:,}",
                f"{made['disk_bytes'] / 1e6:.0f} MB",
                f"{made['prefill_s']:.1f} s",
                f"{1e3 * opened['open_s']:.1f} ms",
                f"{1e3 * opened['first_token_s']:.0f} ms",
                f"{opened['touched_bytes'] / 1e6:.0f} MB",
            ]
        )
    heads = ["tokens", "file", "reading them", "opening", "next token", "memory touched"]
    compared = [
        [
            "edgeqwen",
            "while it is made",
            f"{1e3 * report['open_short']['open_s']:.1f} ms",
            f"{1e3 * report['open_short']['first_token_s']:.0f} ms",
            f"{report['make_short']['disk_bytes'] / 1e6:.0f} MB",
            f"{report['make_short']['prefill_s']:.1f} s",
        ],
        [
            "llama.cpp",
            f"{1e3 * llama['save_s']:.0f} ms",
            f"{1e3 * llama['load_s']:.0f} ms",
            f"{1e3 * llama['first_token_s']:.0f} ms",
            f"{llama['disk_bytes'] / 1e6:.0f} MB",
            f"{llama['prefill_s']:.1f} s",
        ],
    ]
    return f"""# Sessions and kept prompts: figures

{busy_text(report["machine"])}

Measured with random weights in the shape of the {report["shape"]} in {report["type"].upper()}, in
{report["machine"]["n_threads"]} threads. [Sessions](sessions.md) tells what they are.

## Opening

A session is open at once; its pages come in as the next token's attention touches them.

{table(heads, rows)}

## Keeping

{keeping(report["save"])}

## Against llama.cpp

{report["n_short"]:,} tokens. llama.cpp stores its state when it is told to, with
`llama_state_save_file`, and reads all of it back, with `llama_state_load_file`.

{table(["", "saving", "loading", "next token", "file", "reading again"], compared)}

## Kept prompts

{prompts(report)}

## How

{origin_text(report, FIGURES)}
"""


def keeping(save: dict[str, float]) -> str:
    """Returns what it costs to keep a token."""
    return (
        f"A committed token costs {1e6 * save['commit_s']:.0f} µs, "
        f"{100 * save['commit_s'] / save['kept_s']:.2f} % of a step of "
        f"{1e3 * save['kept_s']:.1f} ms; in turn with it, a step in memory takes "
        f"{1e3 * save['free_s']:.1f} ms. At the end of an answer, checksums are computed and "
        f"everything is written to the disk, in {1e3 * save['seal_s']:.0f} ms for "
        f"{ANSWER_TOKENS} tokens; nobody waits for the next token then."
    )


def prompts(report: dict[str, Any]) -> str:
    """Returns what a prompt that was read before saves."""
    first, again = (report[f"prompt_{name}"]["first_token_s"] for name in ("first", "again"))
    return (
        f"A prompt of {report['n_short']:,} tokens and a question: {first:.2f} s to the first "
        f"token when it is read, {1e3 * again:.0f} ms in a later process with another question, "
        f"{100 * again / first:.1f} % of it."
    )


if __name__ == "__main__":
    main()
