"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

_SAMPLING = "Sampling"

ModelOrBuiltIn = Annotated[
    Path | None,
    typer.Argument(
        metavar="MODEL",
        help="A GGUF file; without one, the small built-in guide to edgeqwen.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("-t", "--threads", min=1, help="Threads; by default one for each core."),
]
Context = Annotated[
    int | None,
    typer.Option(
        "-c", "--context", min=1, help="Tokens of context; by default as many as the model has."
    ),
]
Yarn = Annotated[
    float | None,
    typer.Option(
        "--yarn",
        min=1,
        max=1024,
        metavar="FACTOR",
        help="Make the context this many times as long as in the training, by YaRN.",
    ),
]
ContextShift = Annotated[
    bool,
    typer.Option(
        "--context-shift",
        help="Forget the oldest turns after the first when the context is full.",
    ),
]
FullHead = Annotated[
    bool,
    typer.Option(
        "--full-head", help="Compute the scores of all tokens, also where the likeliest do."
    ),
]
CacheType = Annotated[
    str,
    typer.Option(
        "--kv",
        metavar="TYPE",
        help="How keys and values are kept: f16, bf16, q8_0, q4_0 or f32; less takes less memory.",
    ),
]
SessionCacheType = Annotated[
    str | None,
    typer.Option(
        "--kv",
        metavar="TYPE",
        help="How keys and values are kept: f16 (the default, but for a session that has another "
        "type), bf16, q8_0, q4_0 or f32; less takes less memory.",
        show_default=False,
    ),
]
NoPrefixCache = Annotated[
    bool,
    typer.Option(
        "--no-prefix-cache",
        help="Neither keep long prompts for the next time nor look for those that were kept.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("-n", "--max-tokens", min=1, help="Tokens of an answer at most."),
]
System = Annotated[
    str | None,
    typer.Option("--system", help="The system prompt, instead of the model's own."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help="End the answer before this text; may be given several times."),
]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "-f",
        "--file",
        metavar="TEXT",
        help="A text in UTF-8; - reads standard input; by default the built-in one.",
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens from one window to the next; by default half the window."),
]
Special = Annotated[
    bool, typer.Option("--special", help="Read <|im_start|> and the like as special tokens.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Temperature = Annotated[
    float | None,
    typer.Option(help="0 takes the likeliest token.", rich_help_panel=_SAMPLING),
]
TopK = Annotated[int | None, typer.Option(rich_help_panel=_SAMPLING)]
TopP = Annotated[float | None, typer.Option(rich_help_panel=_SAMPLING)]
MinP = Annotated[float | None, typer.Option(rich_help_panel=_SAMPLING)]
RepetitionPenalty = Annotated[float | None, typer.Option(rich_help_panel=_SAMPLING)]
PresencePenalty = Annotated[float | None, typer.Option(rich_help_panel=_SAMPLING)]
FrequencyPenalty = Annotated[float | None, typer.Option(rich_help_panel=_SAMPLING)]
Seed = Annotated[
    int | None,
    typer.Option(help="The same seed gives the same answer.", rich_help_panel=_SAMPLING),
]
