"""``edgeqwen run``: one answer."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgeqwen.cli import options
from edgeqwen.cli.terminal import clean_line, note_line, valid_unicode


def run(
    model: Annotated[
        list[Path],
        # A list may stand before an argument that must be there: one alone is the prompt.
        typer.Argument(
            metavar="MODEL",
            help="A GGUF file; without one, the small built-in guide to edgeqwen.",
            default_factory=list,
            show_default=False,
        ),
    ],
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="What to answer; - reads standard input.")
    ],
    max_tokens: options.MaxTokens = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text as it stands: no chat template.")
    ] = False,
    system: options.System = None,
    stop: options.Stop = None,
    as_json: options.Json = False,
    threads: options.Threads = None,
    context: options.Context = None,
    yarn: options.Yarn = None,
    full_head: options.FullHead = False,
    kv: options.CacheType = "f16",
    no_prefix_cache: options.NoPrefixCache = False,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    presence_penalty: options.PresencePenalty = None,
    frequency_penalty: options.FrequencyPenalty = None,
    seed: options.Seed = None,
) -> None:
    """Answer one prompt and leave."""
    from edgeqwen.cli.answers import (
        PromptProgress,
        cut_short,
        ended_with_context,
        show,
        stats_fields,
    )
    from edgeqwen.cli.context_memory import tell_of_context
    from edgeqwen.cli.interrupts import first_ctrl_c
    from edgeqwen.cli.loading import load_model, named_or_built_in
    from edgeqwen.options import SamplingKeywords

    path = _only(model, prompt)
    if raw and system is not None:
        raise typer.BadParameter("a system prompt needs the chat template: leave out --raw")
    text = valid_unicode(sys.stdin.read() if prompt == "-" else prompt)
    sampling: SamplingKeywords = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "seed": seed,
    }
    with load_model(
        named_or_built_in(path),
        threads=threads,
        context=context,
        full_head=full_head,
        kv=kv,
        yarn=yarn,
        prefix_cache=not no_prefix_cache,
    ) as loaded:
        tell_of_context(loaded, asked_for=(context or yarn) is not None)
        start = loaded.generate if raw else loaded.chat(system).send
        progress = PromptProgress()
        generation = start(
            text, max_tokens=max_tokens, stop=stop or (), progress=progress, **sampling
        )
        if not as_json:
            show(generation, progress)
        else:
            with first_ctrl_c(generation.cancel):
                answer = generation.text
            fields = {
                "text": answer,
                "finish_reason": generation.finish_reason,
                "tokens": generation.tokens,
                **stats_fields(generation.stats),
            }
            print(json.dumps(fields))
    if ended_with_context(generation, max_tokens):
        note_line(f"edgeqwen: {cut_short(generation)}; --context sets a longer one")
    if generation.finish_reason == "cancelled":
        raise KeyboardInterrupt


def _only(models: list[Path], prompt: str) -> Path | None:
    """Returns the model that was named, if any; BadParameter if the arguments can't be meant so."""
    if len(models) > 1:
        raise typer.BadParameter(
            f"{len(models) + 1} arguments, expected [MODEL] PROMPT: put a prompt of several words "
            "in quotes"
        )
    if models:
        return models[0]
    if (found := _sign_of_a_model(prompt)) is not None:
        raise typer.BadParameter(
            f"{clean_line(prompt)}{found}, and the prompt is missing: edgeqwen run MODEL "
            "PROMPT; - reads the prompt from standard input"
        )
    return None


def _sign_of_a_model(prompt: str) -> str | None:
    """Returns why the only argument must be meant as a model, to be put behind it, or None."""
    if prompt == "-":
        return None
    if os.path.isdir(prompt):
        return " is a folder, expected a GGUF file (edgeqwen quantize makes one of a checkpoint)"
    if os.path.exists(prompt):
        return " is a file"
    # Only a single word: a question, too, may end in the name of a file.
    if prompt.lower().endswith(".gguf") and len(prompt.split()) == 1:
        return ": no such file"
    return None
