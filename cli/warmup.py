"""``edgeqwen warmup``: compiles the kernels ahead of the first use."""

from typing import Annotated

import typer

from edgeqwen.cli import options


def warmup(
    model: options.ModelOrBuiltIn = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="For every weight type and every Qwen2.5, instead of a MODEL."),
    ] = False,
    threads: options.Threads = None,
    full_head: options.FullHead = False,
    kv: options.CacheType = "f16",
) -> None:
    """Compile ahead what running a model needs; done once for each CPU and version."""
    from edgeqwen.cli.loading import compile_kernels, named_or_built_in

    if every and model is not None:
        raise typer.BadParameter("--all is for every model: leave out MODEL, or --all")
    path = None if every else named_or_built_in(model)
    compile_kernels(path, threads=threads, full_head=full_head, kv=kv)
    print("All kernels are compiled.")
