"""What ``edgeqwen bench`` measures: the speed of a model at a depth of context."""

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeqwen.cli.memory import peak_rss_bytes
from edgeqwen.errors import OptionError

if TYPE_CHECKING:
    from edgeqwen import Model

# The prompt after which the time to the first token is taken.
_SHORT_PROMPT = 16


def measure(
    path: Path,
    *,
    n_prompt: int,
    n_generate: int,
    depth: int,
    repetitions: int,
    load: "Callable[[int], Model]",
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Returns speeds in tokens/s (medians and all samples), times in s, and memory in bytes.

    ``load`` makes the model for so many tokens of context. ``prefill_tps`` is for ``n_prompt``
    tokens after ``depth`` others, ``decode_tps`` for ``n_generate`` after as many. ``load_s`` ends
    when the model is loaded, ``first_token_s`` when the first token after a prompt of 16 is there;
    both begin before the runtime is imported, and hold the compiling of kernels that no run before
    has left in the cache.
    """
    if not n_prompt and not n_generate:
        raise OptionError("there is nothing to measure: give -p or -n more than 0")
    began = time.perf_counter()
    n_context = max(depth + max(n_prompt, n_generate), _SHORT_PROMPT)
    with load(n_context) as model:
        load_s = time.perf_counter() - began
        _time_prefill(model, 0, _SHORT_PROMPT)
        first_token_s = time.perf_counter() - began
        if n_generate:
            # The first step of one token records and loads what all others use.
            _time_decode(model, 0, 1)
        prefill: list[float] = []
        decode: list[float] = []
        for i in range(repetitions):
            progress(i, repetitions)
            if n_prompt:
                prefill.append(n_prompt / _time_prefill(model, depth, n_prompt))
            if n_generate:
                decode.append(n_generate / _time_decode(model, depth, n_generate))
        progress(repetitions, repetitions)
        return {
            "model": str(path),
            "n_prompt": n_prompt,
            "n_generate": n_generate,
            "depth": depth,
            "n_threads": model.engine.n_threads,
            "repetitions": repetitions,
            "prefill_tps": statistics.median(prefill) if prefill else None,
            "decode_tps": statistics.median(decode) if decode else None,
            "prefill_tps_samples": prefill,
            "decode_tps_samples": decode,
            "load_s": load_s,
            "first_token_s": first_token_s,
            "peak_rss_bytes": peak_rss_bytes(),
        }


def _tokens(model: "Model", n: int) -> list[int]:
    """Returns the same random tokens every time; speed depends little on which they are."""
    return random.Random(1).choices(range(model.config.vocab_size), k=n)


def _time_prefill(model: "Model", depth: int, n_prompt: int) -> float:
    """Returns the seconds of reading ``n_prompt`` tokens after ``depth`` others."""
    sequence = model.engine.new_sequence()
    try:
        if depth:
            model.engine.prefill(sequence, _tokens(model, depth))
        began = time.perf_counter()
        model.engine.prefill(sequence, _tokens(model, n_prompt))
        return time.perf_counter() - began
    finally:
        sequence.close()


def _time_decode(model: "Model", depth: int, n_generate: int) -> float:
    """Returns the seconds of ``n_generate`` single steps after ``depth`` tokens."""
    sequence = model.engine.new_sequence()
    try:
        if depth:
            model.engine.prefill(sequence, _tokens(model, depth))
        tokens = _tokens(model, n_generate)
        began = time.perf_counter()
        for token in tokens:
            model.engine.decode(sequence, token)
        return time.perf_counter() - began
    finally:
        sequence.close()
