"""docs/performance.md, written from performance.json alone; its plots stand beside it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.page_parts import busy_text, table, write_page
from benchmarks.performance_plots import PHASES, PLOTS, Records, write_plots
from benchmarks.runtimes import NAMES
from benchmarks.scaling import speeds_text

COMMAND = "python -m benchmarks.performance"
OURS, THEIRS = NAMES


def write_performance_page(report: Mapping[str, Any], folder: Path) -> str:
    """Writes the page and its plots; returns its tables, for people who wait for them."""
    text = page(report)
    write_page(text, folder / "performance.md")
    write_plots(report["parts"], folder)
    return "\n\n".join(part for part in text.split("\n\n") if part.startswith("| "))


def page(report: Mapping[str, Any]) -> str:
    """Returns docs/performance.md."""
    parts = report["parts"]
    sections = [
        "# Performance, beside llama.cpp",
        "edgeqwen and llama.cpp read the same files, with the same number of threads, each in a "
        "process of its own, in turns: what slows the machine for a while slows both. The files "
        "have the true shapes of Qwen2.5 and random weights, at whose values no kernel of "
        "llama.cpp looks. Figures are medians, in tokens per second unless they say otherwise; a "
        "ratio above 1 says by how much edgeqwen is the faster.",
        *_warnings(parts),
    ]
    for name, make in SECTIONS.items():
        if name in parts:
            sections += make(parts[name])
            if name in PLOTS:
                sections.append(f"![{_TITLES[name]}](performance-{name}.svg)")
    return "\n\n".join([*sections, *_origin(parts)]) + "\n"


def _warnings(parts: Mapping[str, Records]) -> list[str]:
    """Returns what keeps figures from being quoted."""
    records = [record for found in parts.values() for record in found.values()]
    found = []
    if any(record["trial"] for record in records):
        found.append(
            "**Figures of a trial run, with small sizes and single rounds, are among these: they "
            f"show what this page holds, and nothing else. Run `{COMMAND}` on an idle machine.**"
        )
    if any(busy_text(record["machine"]) for record in records):
        found.append(
            "**The machine was busy at times: the last table tells when. llama.cpp's threads spin "
            "for one another and lose most by it, so that no ratio from then is fit to quote.**"
        )
    return found


def _table(records: Records) -> list[str]:
    rows = []
    for model, record in records.items():
        for cell in record["cells"]:
            for phase, key in PHASES:
                n = cell["n_prompt" if phase == "prefill" else "n_generate"]
                label = f"{model}, {phase} {n} at {cell['depth']}"
                rows.append([label, *_pair(cell, key), _share(cell["roofline"][phase])])
    return [
        f"## {_TITLES['table']}",
        "Prefill reads so many tokens together, decode makes so many one after the other, behind "
        "as many as the last number says. The share is how near edgeqwen comes to what the machine "
        "could do at most: in decode, reading weights and KV cache at the speed of a plain read of "
        "memory; in prefill, doing the products of the matrices (in brackets: and of attention) at "
        "the speed of products in registers, with nothing to load or unpack.",
        table(["", OURS, THEIRS, "ratio", "edgeqwen's share"], rows),
    ]


def _share(found: Mapping[str, float]) -> str:
    text = f"{100 * found['share']:.0f} %"
    if "share_with_attention" in found:
        text += f" ({100 * found['share_with_attention']:.0f} %)"
    return text


def _lines(part: str, key: str, what: str) -> Callable[[Records], list[str]]:
    """Makes a section with a row for every value of a cell's field."""

    def section(records: Records) -> list[str]:
        ((model, record),) = records.items()
        heads = [what]
        for phase, _ in PHASES:
            heads += [f"{phase}, {OURS}", THEIRS, "ratio"]
        rows = [
            [str(cell[key]), *_pair(cell, "prefill_tps"), *_pair(cell, "decode_tps")]
            for cell in record["cells"]
        ]
        first = record["cells"][0]
        sizes = f"{first['n_prompt']} tokens read, {first['n_generate']} generated"
        return [f"## {_TITLES[part]}", f"{model}; {sizes}.", table(heads, rows)]

    return section


def _start(records: Records) -> list[str]:
    rows = []
    for model, record in records.items():
        for name, found in record["contestants"].items():
            memory = [_megabytes(found[f"{kind}_bytes"]) for kind in ("peak_rss", "private")]
            rows.append([f"{model}, {name}", f"{found['first_token_s']:.2f}", *memory])
    return [
        f"## {_TITLES['start']}",
        "From the start of a Python process to the first token of an answer to a short text, "
        "through the thinnest script that does it: importing the runtime, loading file and "
        "tokenizer, reading five tokens or so. The file is in the page cache, and edgeqwen's "
        "kernels were compiled before. Resident memory counts the pages of a mapped file that were "
        "touched, which the system may take back; the process's own is without them.",
        table(["", "first token, s", "peak resident, MB", "its own, MB"], rows),
    ]


def _busy(records: Records) -> list[str]:
    ((model, record),) = records.items()
    conditions = [name for name in ("unpinned", "pinned") if name in record["of_idle"]]
    heads = ["", "idle, tokens/s"]
    for condition in conditions:
        heads += [f"{condition}, tokens/s", "of idle"]
    rows = []
    for name in NAMES:
        row = [name, f"{record['decode_tps']['idle'][name]:.2f}"]
        for condition in conditions:
            share = record["of_idle"][condition][name]
            row += [f"{record['decode_tps'][condition][name]:.2f}", f"{100 * share:.0f} %"]
        rows.append(row)
    threads = record["options"]["threads"]
    return [
        f"## {_TITLES['busy']}",
        f"{model}, {record['n_generated']} tokens generated on {threads} threads, while another "
        "process does nothing but keep a CPU at work: one that the system chooses, or always the "
        "same one (pinned).",
        table(heads, rows),
    ]


def _head(records: Records) -> list[str]:
    ((model, record),) = records.items()
    rates = [f"{record[how]['decode_tps']:.1f}" for how in ("screened", "full")]
    return [
        f"## {_TITLES['head']}",
        f"{model}, {record['n_generated']} tokens generated. The weights are random, and so is "
        "which rows of the output matrix stay after the screening.",
        table(["", "screened", "full", "ratio"],
              [["decode", *rates, f"{record['ratio']['decode_tps']:.2f}"]]),
    ]  # fmt: skip


def _scaling(records: Records) -> list[str]:
    ((model, record),) = records.items()
    steps, speeds = record["steps"], record["memory_bytes_per_s"]
    cores = list(steps["decode"]["predicted_tps"]["none"])
    rows, errors = [], []
    for phase, step in steps.items():
        for ceiling, predicted in step["predicted_tps"].items():
            cells = [f"{tps:.0f}" if tps >= 100 else f"{tps:.1f}" for tps in predicted.values()]
            rows.append([f"{phase}, {_ceiling(ceiling)}", *cells])
        for n, tps in step["measured_tps"].items():
            error = f"{100 * step['error'][n]:+.1f} %"
            predicted = f"{step['predicted_tps']['none'][n]:.1f}"
            errors.append([f"{phase}, {_cores(n)}", f"{tps:.1f}", predicted, error])
    losses = []
    for phase, step in steps.items():
        for n in ("4", "8", "16"):
            found = step["losses_s"][n]
            total = sum(found.values())
            losses.append(
                [f"{phase}, {n} cores", *(f"{100 * s / total:.0f} %" for s in found.values())]
            )
    naps = [
        [speeds_text(found["speeds"]), f"{1e3 * found['model_s']:.2f}",
         f"{1e3 * found['executor_s']:.2f}",
         f"{100 * (found['executor_s'] / found['model_s'] - 1):+.1f} %",
         f"{100 * found['even_s'] / found['executor_s']:.0f} %"]
        for found in record["emulations"]
    ]  # fmt: skip
    barrier = {n: 1e9 * seconds for n, seconds in record["barrier_s"].items()}
    prefill = steps["prefill"]["n_tokens"]
    return [
        f"## {_TITLES['scaling']}",
        f"{model}, a prediction: every operation of a step was timed on one core, in the chunks "
        "that so many cores would take. They are taken one after the other by whichever core is "
        "free; none is done faster than memory gives its weights; a barrier follows each. "
        f"Measured were reads of {speeds['1'] / 1e9:.1f} GB/s on one core and "
        f"{speeds['2'] / 1e9:.1f} on two, from which Amdahl's law gives those of more, and "
        f"{barrier['1']:.0f} and {barrier['2']:.0f} ns for a barrier, to which every further core "
        "is taken to add as much as the second. What memory gives all cores together is a "
        "property of each machine, so several ceilings are shown. Cores are taken to be all alike, "
        "and to keep their clock however many are at work. Tokens/s by cores, decode behind "
        f"{steps['decode']['n_past']} tokens and prefill of {prefill}:",
        table(["", *cores], rows),
        "What was measured, and the error of the prediction (without a ceiling):",
        table(["", "measured", "predicted", "error"], errors),
        "Where the time goes: work that all cores share evenly, waiting for the last chunks of "
        "operations, waiting for memory, barriers.",
        table(["", "work", "last chunks", "memory", "barriers"], losses),
        "The scheduler itself was run in slow motion, with chunks that sleep as long as a layer's "
        "and the head's would take, many times over, on more threads than there are cores, and as "
        "if cores were large and small. Milliseconds in true time; the last column is how much of "
        "the cores' time is work.",
        table(["", "model, ms", "executor, ms", "difference", "busy"], naps),
    ]


def _origin(parts: Mapping[str, Records]) -> list[str]:
    """Returns on what machine, at which commit and beside what else each part was measured."""
    records = [
        (part, model, record) for part, found in parts.items() for model, record in found.items()
    ]
    rows = []
    for part, model, record in records:
        about = record["machine"]
        rows.append(
            [f"{part}, {model}", "trial" if record["trial"] else str(record["options"]["rounds"]),
             about["commit"], str(about["load_average"]), str(about["busy_cpus"]),
             str(about["read_gb_per_s"]), str(about["integer_gmac_per_s"])]
        )  # fmt: skip
    heads = ["part", "rounds", "commit", "load average", "CPUs at work for others",
             "memory reads, GB/s", "int8 products, GMAC/s"]  # fmt: skip
    about = records[-1][2]["machine"]
    commands = dict.fromkeys(record["command"] for *_, record in records)
    names = ("python", "edgeqwen", "numpy", "numba", "llama-cpp-python")
    versions = [f"{name} {about['versions'][name]}" for name in names if name in about["versions"]]
    cpus = dict.fromkeys(
        f"{m['cpu']}, {m['n_usable_cpus']} usable CPUs, kernels for {m['isa']}"
        for m in (record["machine"] for *_, record in records)
    )
    return [
        "## How it was made",
        "\n".join(f"    {command}" for command in commands),
        f"{'; '.join(cpus)}. {', '.join(versions)}; llama.cpp was built to use "
        f"{_features(about['llama_cpp_features'])}. Memory and products are what "
        f"{about['n_threads']} threads reach at most, measured before each part.",
        table(heads, rows),
        "The figures are in [performance.json](../benchmarks/results/performance.json), and "
        "[the benchmarks' page](../benchmarks/README.md) tells more.",
    ]


def _features(text: str) -> str:
    """Returns the names of what llama.cpp's system info says it was built with."""
    pairs = (item.partition("=") for item in text.replace("CPU :", "").split("|"))
    return ", ".join(name.strip() for name, _, value in pairs if value.strip() == "1")


def _pair(cell: Mapping[str, Any], key: str) -> list[str]:
    """Returns both runtimes' figures and their ratio."""
    return [
        *(f"{cell[name][key]:.1f}" for name in NAMES),
        f"{cell['ratio'][key]:.2f}",
    ]


def _megabytes(n_bytes: int | None) -> str:
    return "not told" if n_bytes is None else f"{n_bytes / 1e6:.0f}"


def _ceiling(name: str) -> str:
    return "no ceiling" if name == "none" else f"memory {name}"


def _cores(n: str) -> str:
    return "1 core" if n == "1" else f"{n} cores"


_TITLES = {
    "table": "Reading and generating",
    "depth": "Deep in a context",
    "threads": "By threads",
    "start": "Start and memory",
    "busy": "Beside a busy process",
    "head": "The output matrix, screened and in full",
    "scaling": "On more cores",
}
SECTIONS: dict[str, Callable[[Records], list[str]]] = {
    "table": _table,
    "depth": _lines("depth", "depth", "tokens in the context"),
    "threads": _lines("threads", "n_threads", "threads"),
    "start": _start,
    "busy": _busy,
    "head": _head,
    "scaling": _scaling,
}
