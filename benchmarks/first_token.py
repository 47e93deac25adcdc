"""From nothing to the first token of a text, in a process of its own.

    python -m benchmarks.first_token edgeqwen model.gguf 2

is as thin as a script can be: it imports one runtime, loads the file, reads a short prompt, and
prints one token and what memory that took, as JSON.
"""

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_rss_bytes, private_bytes

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "The capital of France is"
N_CONTEXT = 512
_LIBRARIES = ("purelib", "platlib")


def time_first_token(runtime: str, path: Path, n_threads: int) -> dict[str, Any]:
    """Starts a Python process, and returns the figures of its first token.

    ``first_token_s``: from the start of the process until the token is here. ``peak_rss_bytes``:
    the most memory it had, touched pages of mapped files included; ``private_bytes``: what it has
    in the end of its own, without mapped files, or None where the system doesn't tell.
    Raises RuntimeError if the process fails; its messages are on standard error.
    """
    began = time.perf_counter()
    # -S: an installation for development hooks into the start of every Python, which takes 35 ms.
    libraries = sysconfig.get_paths()
    process = subprocess.Popen(
        [sys.executable, "-S", "-m", "benchmarks.first_token", runtime, str(path), str(n_threads)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join({libraries[kind] for kind in _LIBRARIES})},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - began
    process.communicate()
    if not line or process.returncode:
        raise RuntimeError(f"the first token of {runtime} ended with code {process.returncode}")
    return {"first_token_s": seconds, **json.loads(line)}


def main(runtime: str, path: str, n_threads: str) -> None:
    """Makes the token and tells of it, before the memory is given back."""
    make = {"edgeqwen": _edgeqwen, "llama.cpp": _llama_cpp}[runtime]
    make(path, int(n_threads))


def _edgeqwen(path: str, n_threads: int) -> None:
    import edgeqwen

    with edgeqwen.load(path, n_threads=n_threads, max_context=N_CONTEXT) as model:
        _tell("".join(model.generate(PROMPT, max_tokens=1, temperature=0.0)))


def _llama_cpp(path: str, n_threads: int) -> None:
    from benchmarks.llama import LlamaCpp

    with LlamaCpp(path, n_threads=n_threads, n_context=N_CONTEXT, repack=True) as model:
        logits = model.decode(model.tokenize(PROMPT, allow_special=True))
        _tell(model.piece(int(logits[0].argmax())))


def _tell(text: str) -> None:
    private = next(iter(private_bytes("self")), None)
    found = {"text": text, "peak_rss_bytes": peak_rss_bytes(), "private_bytes": private}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
