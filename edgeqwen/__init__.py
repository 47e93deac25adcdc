"""edgeqwen runs Qwen2.5 language models on ordinary CPUs.

    import edgeqwen

    with edgeqwen.load("model.gguf") as model:
        for piece in model.chat().send("Why is the sky blue?"):
            print(piece, end="", flush=True)

Importing this package is cheap: it loads no compiler and starts no thread before ``load``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from edgeqwen import errors

if TYPE_CHECKING:
    from edgeqwen.api import Model, load
    from edgeqwen.chat import Chat
    from edgeqwen.generation import Generation, GenerationStats
    from edgeqwen.sampling import SamplingOptions

__version__ = "0.1.0"

__all__ = [
    "Chat",
    "Generation",
    "GenerationStats",
    "Model",
    "SamplingOptions",
    "__version__",
    "errors",
    "load",
]

# Where the names live that are imported when they are first used.
_HOMES = {
    "Chat": "edgeqwen.chat",
    "Generation": "edgeqwen.generation",
    "GenerationStats": "edgeqwen.generation",
    "Model": "edgeqwen.api",
    "SamplingOptions": "edgeqwen.sampling",
    "load": "edgeqwen.api",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
