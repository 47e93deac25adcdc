"""Types of keys and values: memory, speed at depth, and perplexity of the built-in model.

    python -m benchmarks.cache_types

writes benchmarks/results/cache_types.json and docs/cache-types.md, in ten minutes or so. Speeds are
of random weights in true shapes, of all types in turn in one process; what is in the cache before
are random numbers of a usual size. (Of any size, some would be so small that CPUs take hundreds of
cycles for a product.)
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgeqwen
from benchmarks.machine import describe, n_usable_cpus
from benchmarks.page_parts import DOCS, RESULTS, busy_text, origin_text, table, write_page
from benchmarks.synthetic import model_file
from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile
from edgeqwen.guide import held_out_text
from edgeqwen.kernels.attention_types import SEGMENT
from edgeqwen.kernels.cache_types import CACHE_TYPES
from edgeqwen.model.steps import PREFILL_TOKENS
from edgeqwen.perplexity import perplexity

DEPTHS = (0, 4096, 16384)
DECODED = 6
FIGURES = "cache_types.json"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("-t", "--threads", type=int, default=n_usable_cpus())
    options.add_argument("--shape", default="0.5B")
    options.add_argument("--type", default="q4_0")
    options.add_argument("--rounds", type=int, default=9)
    chosen = options.parse_args()
    path = model_file(chosen.shape, chosen.type)
    report = {
        "command": "python -m benchmarks.cache_types",
        "machine": describe(chosen.threads),
        "shape": chosen.shape,
        "type": chosen.type,
        "depths": DEPTHS,
        "types": speeds(path, chosen.threads, chosen.rounds),
    }
    for name, value in perplexities().items():
        report["types"][name] |= value
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / FIGURES).write_text(json.dumps(report, indent=1) + "\n")
    write_page(page(report), DOCS / "cache-types.md")


def speeds(path: Path, n_threads: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Returns for each type: bytes of a token, and medians at each depth, in seconds."""
    with GgufFile.open(path) as file:
        engines = {name: _engine(file, name, n_threads) for name in CACHE_TYPES}
        sequences = {name: _filled(engine) for name, engine in engines.items()}
        decoded: dict[str, list[list[float]]] = {name: [[] for _ in DEPTHS] for name in engines}
        read: dict[str, list[list[float]]] = {name: [[] for _ in DEPTHS] for name in engines}
        rng = np.random.default_rng(0)
        for i, depth in reversed([*enumerate(DEPTHS)]):
            for _ in range(rounds):
                for name, engine in engines.items():
                    sequence = sequences[name]
                    sequence.truncate(depth)
                    ids = rng.integers(0, 100_000, PREFILL_TOKENS)
                    read[name][i].append(_seconds(engine, sequence, ids))
                    sequence.truncate(depth)
                    steps = [_seconds(engine, sequence, ids[j : j + 1]) for j in range(DECODED)]
                    # The first looks at the last memory of another engine.
                    decoded[name][i] += steps[1:]
        found = {
            name: {
                "bytes_per_token": engine.layout.bytes_per_token,
                "decode_s": [statistics.median(times) for times in decoded[name]],
                "prefill_s": [statistics.median(times) for times in read[name]],
            }
            for name, engine in engines.items()
        }
        for name, engine in engines.items():
            sequences[name].close()
            engine.close()
    return found


def perplexities() -> dict[str, dict[str, float]]:
    """Returns the perplexity of the built-in model on the text that comes with it, by type."""
    found = {}
    for name in CACHE_TYPES:
        with edgeqwen.load(cache_type=name, prefix_cache=False) as model:
            tokens = model.tokenizer.encode(held_out_text(), allow_special=True)
            found[name] = {"perplexity": perplexity(model, tokens).perplexity}
    return found


def page(report: dict[str, Any]) -> str:
    """Returns docs/cache-types.md."""
    types, depths = report["types"], report["depths"]
    base = types["f16"]

    def milliseconds(times: Sequence[float], i: int) -> str:
        return f"{1e3 * times[i]:.1f}"

    rows = [
        [
            f"`{name}`",
            f"{found['bytes_per_token']:,}",
            f"{100 * (found['perplexity'] / base['perplexity'] - 1):+.3f} %",
            *(milliseconds(found["decode_s"], i) for i in range(len(depths))),
            *(f"{PREFILL_TOKENS / found['prefill_s'][i]:.0f}" for i in range(len(depths))),
        ]
        for name, found in types.items()
    ]
    heads = [
        "type",
        "bytes a token",
        "perplexity",
        *(f"ms a token at {depth:,}" for depth in depths),
        *(f"tokens/s read at {depth:,}" for depth in depths),
    ]
    return f"""# Types of keys and values

{busy_text(report["machine"])}

`--kv TYPE`, in Python `cache_type`, says how keys and values are kept. Perplexity is that of the
built-in model on its own text, beside `f16`. Speeds are of random weights in the shape of the
{report["shape"]} in {report["type"].upper()}, {report["machine"]["n_threads"]} threads: a token
generated, and {PREFILL_TOKENS} tokens of a prompt read, after so many others.

{table(heads, rows)}

Keys of real checkpoints have biases hundreds of times larger than the rest, in some dimensions of
some layers. In types of fewer bits they would swallow the range; so these types keep such biases
out of the cache, and attention adds what is missing, exactly
([the map](architecture.md) tells more).
Where `--kv` is to save memory, `q8_0` takes half of it at no cost in quality that could be measured
here; `q4_0` takes a quarter, and its cost depends on the model: compare it on your own text with
`edgeqwen perplexity --kv`.

## How

{origin_text(report, FIGURES)}
"""


def _engine(file: GgufFile, cache_type: str, n_threads: int) -> Engine:
    n_context = max(DEPTHS) + 2 * PREFILL_TOKENS
    engine = Engine(file, n_threads=n_threads, max_context=n_context, cache_type=cache_type)
    engine.prepare()
    engine.wait_until_loaded()
    return engine


def _filled(engine: Engine) -> Any:
    """Returns a sequence whose cache holds random numbers."""
    sequence = engine.new_sequence()
    sequence.reserve(max(DEPTHS) + PREFILL_TOKENS)
    layout = engine.layout
    per_half = layout.head_dim // 32 * SEGMENT
    halves = [block(layout.cache_type, n) * (per_half // n) for n in (32, 64)]  # of K and of V
    noise = np.frombuffer(b"".join(halves) * (layout.n_layers * layout.n_kv_heads), np.uint8)
    for segment in sequence.store.segments:
        segment.view(0, layout.segment_bytes)[:] = noise
    sequence.extend([1] * max(DEPTHS))
    return sequence


def block(cache_type: str, n_positions: int) -> bytes:
    """Returns 32 dimensions of so many positions: numbers of deviation 1, in any order."""
    x = np.random.default_rng(n_positions).standard_normal(32 * n_positions).astype(np.float32)
    if cache_type in ("f16", "f32"):
        return x.astype({"f16": "<f2", "f32": "<f4"}[cache_type]).tobytes()
    if cache_type == "bf16":
        return (x.view(np.uint32) >> 16).astype("<u2").tobytes()
    step = {"q8_0": 4 / 127, "q4_0": 4 / 8}[cache_type]
    codes = np.clip(np.rint(x / step), -7 if cache_type == "q4_0" else -127, 127).astype(np.int8)
    if cache_type == "q4_0":
        low, high = np.minimum(codes, 7).reshape(2, -1)
        codes = (low & 15) | (high << 4)
    return np.full(n_positions, step, "<f2").tobytes() + codes.tobytes()


def _seconds(engine: Engine, sequence: Any, ids: Any) -> float:
    began = time.perf_counter()
    if len(ids) == 1:
        engine.decode(sequence, int(ids[0]))
    else:
        engine.prefill(sequence, ids)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
