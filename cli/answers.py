"""Showing an answer while it is generated."""

import os
import sys
from typing import TYPE_CHECKING, Any

from edgeqwen.cli.interrupts import first_ctrl_c
from edgeqwen.cli.terminal import clean

if TYPE_CHECKING:
    from edgeqwen import Generation, GenerationStats

# Reading so many tokens of a prompt takes long enough that something should move meanwhile.
_LONG_PROMPT = 512


class PromptProgress:
    """Shows how much of a long prompt is read, in a line of the terminal that vanishes again."""

    def __init__(self) -> None:
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        if done >= total:
            self.clear()
        elif total >= _LONG_PROMPT and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            sys.stderr.write(f"\r\x1b[Kreading the prompt: {done} of {total} tokens")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def show(generation: "Generation", progress: PromptProgress) -> None:
    """Prints the pieces as they come and ends the line, also after Ctrl-C."""
    ends_line = True
    try:
        with first_ctrl_c(generation.cancel):
            for piece in generation:
                sys.stdout.write(clean(piece))
                sys.stdout.flush()
                ends_line = piece.endswith("\n")
    finally:
        progress.clear()
    if not ends_line or not generation.tokens:
        sys.stdout.write("\n")
        sys.stdout.flush()


def ended_with_context(generation: "Generation", max_tokens: int | None) -> bool:
    """Tells whether an answer was cut because the context is full, not after ``max_tokens``."""
    is_cut = generation.finish_reason == "length"
    return is_cut and generation.stats.n_generated != max_tokens


def cut_short(generation: "Generation") -> str:
    """Returns what became of an answer that filled the context."""
    return f"cut after {generation.stats.n_generated} tokens: the context is full"


def stats_line(stats: "GenerationStats") -> str:
    """Returns what an answer took, for people."""
    n_read = stats.n_prompt - stats.n_reused
    reused = f" and {stats.n_reused} reused" if stats.n_reused else ""
    return (
        f"prompt: {n_read} tokens read{reused}, {_speed(stats.prefill_s, stats.prefill_tps)}; "
        f"answer: {stats.n_generated} tokens, {_speed(stats.decode_s, stats.decode_tps)}"
    )


def _speed(seconds: float, tps: float | None) -> str:
    return f"{seconds:.2f} s" + (f" ({tps:.1f} tokens/s)" if tps is not None else "")


def stats_fields(stats: "GenerationStats") -> dict[str, Any]:
    """Returns what an answer took, for programs. Times are in seconds."""
    return {
        "n_prompt": stats.n_prompt,
        "n_reused": stats.n_reused,
        "n_generated": stats.n_generated,
        "prefill_s": stats.prefill_s,
        "decode_s": stats.decode_s,
        "first_token_s": stats.first_token_s,
        "prefill_tps": stats.prefill_tps,
        "decode_tps": stats.decode_tps,
    }
