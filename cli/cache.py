"""``edgeqwen cache``: the prompts that were read before."""

import datetime
import json

from edgeqwen.cli import options
from edgeqwen.cli.terminal import size_text


def list_prompts(as_json: options.Json = False) -> None:
    """List what is kept of long prompts, so that they needn't be read again."""
    from edgeqwen.reuse import kept_prompts

    found = kept_prompts()
    if as_json:
        print(json.dumps([{"path": str(p), "bytes": n, "used": t} for p, n, t in found]))
        return
    for path, n_bytes, used in reversed(found):
        when = datetime.datetime.fromtimestamp(used).strftime("%Y-%m-%d %H:%M")
        print(f"{size_text(n_bytes):>9}  used {when}  {path}")
    print(f"{_prompts(len(found))} in {size_text(sum(n for _, n, _ in found))}")


def clear() -> None:
    """Delete what is kept of prompts, and nothing else."""
    from edgeqwen.reuse import forget_prompts

    n, n_bytes = forget_prompts()
    print(f"{_prompts(n)} deleted, {size_text(n_bytes)} freed")


def _prompts(n: int) -> str:
    return "1 prompt" if n == 1 else f"{n} prompts"
