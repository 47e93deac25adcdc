"""What ``edgeqwen bench`` measures: the speed of models at a depth of context."""

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeqwen.cli.machine import Machine
from edgeqwen.cli.memory import peak_rss_bytes
from edgeqwen.errors import OptionError

if TYPE_CHECKING:
    from edgeqwen import Model

# The prompt after which the time to the first token is taken.
_SHORT_PROMPT = 16
# The threads of the model before may wait for more work so long, and take time from the next one.
_SETTLE_S = 0.05


def measure(
    path: Path,
    *,
    n_prompt: int,
    n_generate: int,
    depth: int,
    repetitions: int,
    load: "Callable[[int], Model]",
    progress: Callable[[int, int], None],
    roofline: bool = False,
) -> dict[str, Any]:
    """Returns speeds in tokens/s (medians and all samples), times in s, and memory in bytes.

    ``load`` makes the model for so many tokens of context. ``prefill_tps`` is for ``n_prompt``
    tokens after ``depth`` others, ``decode_tps`` for ``n_generate`` after as many. ``load_s`` ends
    when the model is loaded, ``first_token_s`` when the first token after a prompt of 16 is there;
    both begin before the runtime is imported, and hold the compiling of kernels that no run before
    has left in the cache. ``roofline`` also measures the machine, after every repetition, and adds
    a dict of that name: what the machine reaches, and what share of it the model does.
    """
    if not n_prompt and not n_generate:
        raise OptionError("there is nothing to measure: give -p or -n more than 0")
    began = time.perf_counter()
    n_context = max(depth + max(n_prompt, n_generate), _SHORT_PROMPT)
    with load(n_context) as model, contextlib.ExitStack() as stack:
        load_s = time.perf_counter() - began
        _time_prefill(model, 0, _SHORT_PROMPT)
        first_token_s = time.perf_counter() - began
        machine = stack.enter_context(Machine(model.engine)) if roofline else None
        (found,) = speeds(
            [model],
            n_prompt=n_prompt,
            n_generate=n_generate,
            depth=depth,
            repetitions=repetitions,
            progress=progress,
            after_turn=machine.measure if machine else lambda: None,
        )
        figures = {
            "model": str(path),
            "n_prompt": n_prompt,
            "n_generate": n_generate,
            "depth": depth,
            "n_threads": model.engine.n_threads,
            "repetitions": repetitions,
            **found,
            "load_s": load_s,
            "first_token_s": first_token_s,
            "peak_rss_bytes": machine.peak_rss_bytes if machine else peak_rss_bytes(),
        }
        if machine:
            figures["roofline"] = machine.roofline(figures)
        return figures


def speeds(
    models: "Sequence[Model]",
    *,
    n_prompt: int,
    n_generate: int,
    depth: int,
    repetitions: int,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool] = lambda: False,
    after_turn: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Returns the speeds of each model, as ``measure`` does: medians, and all samples.

    Models take turns within every repetition, so that what slows the machine for a while slows all
    of them. ``cancelled`` is asked between turns; what was measured before it counts.
    ``after_turn`` may measure something else.
    """
    prefill: list[list[float]] = [[] for _ in models]
    decode: list[list[float]] = [[] for _ in models]
    # The first step of a kind records and loads what all others use.
    for model in models:
        if n_prompt:
            _time_prefill(model, 0, min(n_prompt, 2))
        if n_generate:
            _time_decode(model, 0, 1)
    turns = [(model, i) for _ in range(repetitions) for i, model in enumerate(models)]
    for number, (model, i) in enumerate(turns):
        progress(number, len(turns))
        if cancelled():
            break
        if len(models) > 1:
            time.sleep(_SETTLE_S)
        if n_prompt:
            prefill[i].append(n_prompt / _time_prefill(model, depth, n_prompt))
        if n_generate:
            decode[i].append(n_generate / _time_decode(model, depth, n_generate))
        after_turn()
    else:
        progress(len(turns), len(turns))
    return [
        {
            "prefill_tps": statistics.median(prefill[i]) if prefill[i] else None,
            "decode_tps": statistics.median(decode[i]) if decode[i] else None,
            "prefill_tps_samples": prefill[i],
            "decode_tps_samples": decode[i],
        }
        for i in range(len(models))
    ]


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
    """Returns the seconds of ``n_generate`` single steps after ``depth`` tokens.

    Of the logits, the steps compute what the model's sampler wants. Nothing is sampled.
    """
    from edgeqwen.sampling import Sampler

    wanted = Sampler(model.sampling, model.config.vocab_size).wanted
    sequence = model.engine.new_sequence()
    try:
        if depth:
            model.engine.prefill(sequence, _tokens(model, depth))
        tokens = _tokens(model, n_generate)
        began = time.perf_counter()
        for token in tokens:
            model.engine.decode(sequence, token, wanted)
        return time.perf_counter() - began
    finally:
        sequence.close()
