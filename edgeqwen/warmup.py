"""Compiling ahead of time all that a model needs."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile
from edgeqwen.model.steps import Kernels
from edgeqwen.model.unloaded import unloaded_family


def warmup(
    path: str | Path | None,
    *,
    n_threads: int | None = None,
    full_head: bool = False,
    cache_type: str = "f16",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Compiles every kernel that a model needs, or that any format needs if ``path`` is None.

    Those of the tokenizer are among them. ``full_head`` and ``cache_type`` as for ``Engine``;
    ``progress(done, total)`` counts kernels. Raises what ``Engine`` raises.
    """
    with contextlib.ExitStack() as stack:
        files = unloaded_family() if path is None else [stack.enter_context(GgufFile.open(path))]
        kernels: Kernels = {}
        for file in files:
            engine = Engine(
                file,
                n_threads=n_threads,
                max_context=64,
                cache_type=cache_type,
                full_head=full_head,
                pack=False,
            )
            stack.callback(engine.close)
            kernels.update(engine.kernels())
        for i, compiled in enumerate(kernels.values()):
            compiled()
            if progress is not None:
                progress(i + 1, len(kernels))
