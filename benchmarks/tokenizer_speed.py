"""The tokenizer beside the tokenizers library's own, on one file: time, memory and the same ids."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

if __package__ in (None, ""):  # run as a file: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from benchmarks.guide_tasks import positive
from benchmarks.synthetic import model_file
from edgeqwen.gguf_file import GgufFile
from edgeqwen.guide import held_out_text
from edgeqwen.quant.hf_vocabulary import SPLIT_PATTERN
from edgeqwen.text.tokenizer import Tokenizer

Encode = Callable[[str], list[int]]


class Making(NamedTuple):
    """What it took to make a tokenizer in a process of its own; ``n_bytes`` on Linux only."""

    open_s: float
    make_s: float
    n_bytes: int | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures in turns and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file (random 0.5B in q4_0)")
    parser.add_argument("-f", "--file", type=Path, help="a text (the built-in held-out text)")
    parser.add_argument("--rounds", type=positive, default=5, help="of which the median counts")
    options = parser.parse_args(arguments)
    path = options.model or model_file("0.5B", "q4_0")
    text = options.file.read_text("utf-8") if options.file else held_out_text()
    makers = {"edgeqwen": ours, "tokenizers": library}
    makings: dict[str, list[Making]] = {name: [] for name in makers}
    for _ in range(options.rounds):
        for name in makers:
            makings[name].append(make_alone(path, name))
    with GgufFile.open(path) as file:
        encoders = {name: make(file) for name, make in makers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    ids: dict[str, list[int]] = {}
    for _ in range(options.rounds + 1):
        for name, encode in encoders.items():
            start = time.perf_counter()
            ids[name] = encode(text)
            seconds[name].append(time.perf_counter() - start)
    same = "the same" if ids["edgeqwen"] == ids["tokenizers"] else "DIFFERENT"
    print(f"{len(text)} characters, {len(ids['edgeqwen'])} tokens: {same} ids")
    for name in makers:
        opened, made = (median(m[i] for m in makings[name]) * 1e3 for i in (0, 1))
        sizes = [m.n_bytes for m in makings[name] if m.n_bytes is not None]
        memory = f", {median(sizes) / 1e6:.1f} MB" if sizes else ""
        # The first encoding may compile, or fill a cache.
        speed = len(text) / median(seconds[name][1:]) / 1e6
        print(
            f"{name:11} open {opened:.0f} ms, make {made:.0f} ms{memory}; "
            f"encode {speed:.1f} M characters/s"
        )


def ours(file: GgufFile) -> Encode:
    """Makes edgeqwen's tokenizer of a file."""
    return Tokenizer.from_gguf(file).encode


def library(file: GgufFile) -> Encode:
    """Makes the library's tokenizer of the same tokens and merges."""
    tokens = file.metadata["tokenizer.ggml.tokens"]
    made = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in file.metadata["tokenizer.ggml.merges"]],
        )
    )
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return lambda text: made.encode(text, add_special_tokens=False).ids


def make_alone(path: Path, name: str) -> Making:
    """Makes a tokenizer in a fresh process, after that of the built-in model: code is loaded."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(_make, path, name).result()


def _make(path: Path, name: str) -> Making:
    from edgeqwen.guide import model_path

    make: Any = {"edgeqwen": ours, "tokenizers": library}[name]
    with GgufFile.open(model_path()) as small:
        make(small)("a text")
    before = _resident_bytes()
    start = time.perf_counter()
    file = GgufFile.open(path)
    opened = time.perf_counter()
    encode = make(file)
    made = time.perf_counter()
    after = _resident_bytes()
    encode("a text")
    taken = None if before is None or after is None else after - before
    return Making(opened - start, made - opened, taken)


def _resident_bytes() -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
