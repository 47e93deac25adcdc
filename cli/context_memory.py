"""What a context takes of memory: said before a conversation takes it."""

import contextlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeqwen.cli import memory
from edgeqwen.cli.terminal import note_line, size_text

if TYPE_CHECKING:
    from edgeqwen import Model

# What somebody asked for is told from this size on; what nobody asked for, where it is more than
# half of what is left.
LARGE = 256 << 20


def tell_of_context(model: "Model", *, asked_for: bool, session: Path | None = None) -> None:
    """Prints a line on standard error where the context may take much, and warns if too much.

    ``session``: the file that it will be in. Warns also of a context that is longer than the model
    was trained for.
    """
    n_tokens = model.engine.max_context
    needed, free = model.cache_bytes(), memory.available_bytes()
    takes = f"a context of {n_tokens} tokens takes up to {size_text(needed)} of memory"
    if session is not None:
        takes += " and of the disk"
        with contextlib.suppress(OSError):  # which opening the session will tell
            on_disk = shutil.disk_usage(session.parent).free
            free = on_disk if free is None else min(free, on_disk)
    if free is not None and needed > free:
        print(
            f"edgeqwen: warning: {takes}, but only {size_text(free)} are free: "
            f"{_advice(model, free)}",
            file=sys.stderr,
            flush=True,
        )
    elif (asked_for and needed >= LARGE) or (free is not None and needed > free // 2):
        note_line(f"edgeqwen: {takes}, beside {size_text(model.engine.weight_bytes)} of weights")
    if n_tokens > model.config.max_context:
        note_line(
            f"edgeqwen: the model was trained for {model.config.max_context} tokens, and does "
            "worse beyond them; --yarn FACTOR makes its context longer"
        )


def _advice(model: "Model", free: int) -> str:
    """Returns what fits; segments are whole, and some memory is left to others."""
    per_token = max(model.cache_bytes(1024) // 1024, 1)
    n_tokens = free * 3 // 4 // per_token // 1024 * 1024
    return f"--context {n_tokens} fits" if n_tokens else "a smaller model needs less"
