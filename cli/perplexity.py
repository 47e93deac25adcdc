"""``edgeqwen perplexity``: how well a model predicts a text."""

import json
import math
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeqwen.cli import options

if TYPE_CHECKING:
    from edgeqwen.perplexity import Perplexity


def perplexity(
    model: options.ModelOrBuiltIn = None,
    file: options.TextFile = None,
    context: Annotated[
        int | None,
        typer.Option(
            "-c",
            "--context",
            min=2,
            help="Tokens of a window; by default 512, or the model's context if that is less.",
        ),
    ] = None,
    stride: options.Stride = None,
    yarn: options.Yarn = None,
    special: options.Special = False,
    threads: options.Threads = None,
    kv: options.CacheType = "f16",
    as_json: options.Json = False,
) -> None:
    """Measure how well a model predicts a text: lower is better, 1 is certainty.

    The text is read in windows that overlap. What stands after ± is the standard error.
    Ctrl-C ends it early, with the figures so far.
    """
    from edgeqwen.cli.interrupts import first_ctrl_c
    from edgeqwen.cli.loading import load_model, named_or_built_in
    from edgeqwen.cli.progress import count_bar
    from edgeqwen.cli.text_file import read_text
    from edgeqwen.guide import held_out_text

    text = held_out_text() if file is None else read_text(file)
    # Not before: it brings Numba, for which a misspelled name shouldn't have to wait.
    from edgeqwen.perplexity import perplexity as measure

    stopped = threading.Event()
    path = named_or_built_in(model)
    with load_model(path, threads=threads, context=None, kv=kv, yarn=yarn) as loaded:
        tokens = loaded.tokenizer.encode(text, allow_special=special or file is None)
        with first_ctrl_c(stopped.set), count_bar("measuring") as bar:
            found = measure(
                loaded,
                tokens,
                context=context,
                stride=stride,
                cancelled=stopped.is_set,
                progress=bar,
                running=lambda value: bar.describe(f"measuring: perplexity {value:.4g}"),
            )
    print(json.dumps(_fields(found)) if as_json else _lines(found))
    if stopped.is_set():
        raise KeyboardInterrupt


def _fields(found: "Perplexity") -> dict[str, Any]:
    """Returns the figures for programs; null where one is unknown or more than a float holds."""
    fields = {
        "perplexity": found.perplexity,
        "perplexity_se": found.perplexity_se,
        "mean_nll": found.mean_nll,
        "mean_nll_se": found.mean_nll_se,
        "n_tokens": found.n_tokens,
        "n_scored": found.n_scored,
        "n_windows": found.n_windows,
        "n_read": found.n_read,
        "context": found.context,
        "stride": found.stride,
        "elapsed_s": found.elapsed_s,
        "read_tps": found.read_tps,
    }
    return {
        key: value if value is None or math.isfinite(value) else None
        for key, value in fields.items()
    }


def _lines(found: "Perplexity") -> str:
    """Returns the figures for people."""

    def with_error(value: float, error: float | None) -> str:
        return f"{value:.6g}" + (f" ± {error:.3g}" if error is not None else "")

    return "\n".join(
        (
            f"perplexity   {with_error(found.perplexity, found.perplexity_se)}",
            f"mean NLL     {with_error(found.mean_nll, found.mean_nll_se)} nats per token",
            f"tokens       {found.n_tokens}, of which {found.n_scored} were scored",
            f"windows      {found.n_windows} of {found.context} tokens, stride {found.stride}",
            f"speed        {found.read_tps:.1f} tokens/s read, in {found.elapsed_s:.1f} s",
        )
    )
