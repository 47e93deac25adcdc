"""``edgeqwen bench``: how fast a model runs here."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from edgeqwen.cli import options

if TYPE_CHECKING:
    from edgeqwen import Model


def bench(
    model: options.ModelOrBuiltIn = None,
    prompt_tokens: Annotated[
        int, typer.Option("-p", "--prompt-tokens", min=0, help="Tokens to read; 0 leaves it out.")
    ] = 512,
    new_tokens: Annotated[
        int, typer.Option("-n", "--new-tokens", min=0, help="Tokens to generate; 0 leaves it out.")
    ] = 64,
    depth: Annotated[
        int, typer.Option("-d", "--depth", min=0, help="Tokens in the context before either.")
    ] = 0,
    threads: options.Threads = None,
    full_head: options.FullHead = False,
    kv: options.CacheType = "f16",
    repetitions: Annotated[
        int, typer.Option("-r", "--repetitions", min=1, help="The median of so many is shown.")
    ] = 3,
    roofline: Annotated[
        bool,
        typer.Option(
            "--roofline", help="Measure the machine, too: which share of its limits is reached."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Measure reading (prefill) and generating (decode), loading and memory."""
    from edgeqwen.cli.loading import named_or_built_in
    from edgeqwen.cli.machine import roofline_lines
    from edgeqwen.cli.measure import measure
    from edgeqwen.cli.progress import count_bar

    path = named_or_built_in(model)

    def load_model(n_context: int) -> "Model":
        from edgeqwen import load

        return load(
            path, n_threads=threads, max_context=n_context, full_head=full_head, cache_type=kv
        )

    with count_bar("measuring") as progress:
        figures = measure(
            path,
            n_prompt=prompt_tokens,
            n_generate=new_tokens,
            depth=depth,
            repetitions=repetitions,
            load=load_model,
            progress=progress,
            roofline=roofline,
        )
    figures["kv"] = kv
    if as_json:
        print(json.dumps(figures))
        return
    print(f"threads               {figures['n_threads']}")
    for label, key, n in (
        ("prefill", "prefill_tps", prompt_tokens),
        ("decode", "decode_tps", new_tokens),
    ):
        if figures[key] is not None:
            print(f"{f'{label} {n} at {depth}':<22}{figures[key]:.1f} tokens/s")
    print(f"load                  {figures['load_s']:.2f} s")
    print(f"load to first token   {figures['first_token_s']:.2f} s")
    if figures["peak_rss_bytes"] is not None:
        print(f"peak memory           {figures['peak_rss_bytes'] / 2**20:.0f} MiB")
    if roofline:
        print(*roofline_lines(figures["roofline"]), sep="\n")
