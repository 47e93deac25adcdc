"""The model of a command: found where none is named, and loaded with bars while it takes time."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeqwen.cli.progress import byte_bar, count_bar

if TYPE_CHECKING:
    from edgeqwen import Model

BUILT_IN = (
    "Using the built-in model, a guide to edgeqwen. For a real one, download a Qwen2.5 and run: "
    "edgeqwen quantize FOLDER -o model.gguf && edgeqwen chat model.gguf"
)


def named_or_built_in(model: Path | None) -> Path:
    """Returns the model that was named, or else the built-in one, and says so on standard error."""
    if model is not None:
        return model
    from edgeqwen.guide import model_path

    path = model_path()
    print(BUILT_IN, file=sys.stderr, flush=True)
    return path


def load_model(
    path: Path,
    *,
    threads: int | None,
    context: int | None,
    full_head: bool = False,
    kv: str = "f16",
    prefix_cache: bool = False,
    yarn: float | None = None,
) -> "Model":
    """Loads a GGUF file; raises what ``edgeqwen.load`` raises.

    ``kv``: its ``cache_type``. ``yarn``: a factor, or None.
    """
    from edgeqwen import load

    # The first use of a model on a CPU compiles for some seconds: it shows here, and not as a
    # first answer that doesn't come.
    with (
        count_bar("compiling kernels for this CPU") as compiling,
        byte_bar(f"loading {path.name}") as loading,
    ):

        def progress(done: int, total: int) -> None:
            compiling.close()
            loading(done, total)

        return load(
            path,
            n_threads=threads,
            max_context=context,
            cache_type=kv,
            full_head=full_head,
            prefix_cache=prefix_cache,
            rope_scaling=None if yarn is None else {"rope_type": "yarn", "factor": yarn},
            compiling=compiling,
            progress=progress,
        )


def compile_kernels(
    path: Path | None, *, threads: int | None, full_head: bool = False, kv: str = "f16"
) -> None:
    """Compiles what a model needs, or what every weight type needs, unless it is in the cache."""
    from edgeqwen.warmup import warmup

    with count_bar("compiling kernels for this CPU") as progress:
        warmup(path, n_threads=threads, full_head=full_head, cache_type=kv, progress=progress)
