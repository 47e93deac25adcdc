"""What benchmarks/sessions.py times, each in a process of its own: one step, one line of JSON.

python -m benchmarks.session_steps open MODEL SESSION 30000 2
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import peak_rss_bytes

ANSWER_TOKENS = 64
ROUNDS = 7


def make(model: str, session: str, n_tokens: int, n_threads: int) -> dict[str, Any]:
    """Reads a text of random tokens into a session, which is made."""
    with _load(model, n_tokens, n_threads) as loaded:
        sequence = _sequence(loaded, session)
        prefill_s = _seconds(lambda: loaded.engine.prefill(sequence, _tokens(n_tokens)))
        close_s = _seconds(sequence.close)
    status = os.stat(session)
    return {"prefill_s": prefill_s, "close_s": close_s, "disk_bytes": 512 * status.st_blocks}


def open(model: str, session: str, n_tokens: int, n_threads: int) -> dict[str, Any]:
    """Opens the session and computes one token after all that it holds."""
    with _load(model, n_tokens, n_threads) as loaded:
        # What every first token costs, of whatever length: the weights come into place.
        warm = loaded.engine.new_sequence()
        loaded.engine.decode(warm, 1)
        warm.close()
        before, began = _resident_bytes(), time.perf_counter()
        sequence = _sequence(loaded, session)
        opened = time.perf_counter()
        assert sequence.n_tokens >= n_tokens, sequence.n_tokens
        loaded.engine.decode(sequence, 1)
        ended = time.perf_counter()
        touched = _resident_bytes() - before
        sequence.truncate(n_tokens)
        sequence.close()
        return {
            "open_s": opened - began,
            "first_token_s": ended - opened,
            "touched_bytes": touched,
            "peak_rss_bytes": peak_rss_bytes(),
        }


def save(model: str, session: str, n_tokens: int, n_threads: int) -> dict[str, Any]:
    """Decodes in a session and in memory, in turn: what is it to be kept?"""
    with _load(model, n_tokens + ANSWER_TOKENS * ROUNDS, n_threads) as loaded:
        engine = loaded.engine
        kept, free = _sequence(loaded, session), engine.new_sequence()
        store: Any = kept.store
        append, commits = store.append, []

        def timed_append(tokens: list[int]) -> None:
            began = time.perf_counter()
            append(tokens)
            commits.append(time.perf_counter() - began)

        store.append = timed_append
        for sequence in (kept, free):
            engine.prefill(sequence, _tokens(n_tokens))
        commits.clear()
        steps: dict[str, list[float]] = {"kept": [], "free": []}
        seals = []
        for _ in range(ROUNDS):
            for name, sequence in (("kept", kept), ("free", free)):
                for token in _tokens(ANSWER_TOKENS):
                    began = time.perf_counter()
                    engine.decode(sequence, token)
                    steps[name].append(time.perf_counter() - began)
            seals.append(_seconds(kept.seal))
        kept.close()
        free.close()
        return {
            "kept_s": statistics.median(steps["kept"]),
            "free_s": statistics.median(steps["free"]),
            "commit_s": statistics.median(commits),
            "seal_s": statistics.median(seals),
        }


def prompt(model: str, question: str, n_tokens: int, n_threads: int) -> dict[str, Any]:
    """Answers a question after a long system prompt, which may have been read before."""
    import edgeqwen

    with edgeqwen.load(model, n_threads=n_threads, max_context=n_tokens + 256) as loaded:
        ids = [*_tokens(n_tokens), *loaded.tokenizer.encode(question)]
        pieces = loaded.generate(ids, max_tokens=4, temperature=0)
        for _ in pieces:
            pass
    return {"first_token_s": pieces.stats.first_token_s, "n_reused": pieces.stats.n_reused}


def llama(model: str, state: str, n_tokens: int, n_threads: int) -> dict[str, Any]:
    """Reads the same text with llama.cpp, stores its state in a file, and reads that."""
    from benchmarks.llama import LlamaCpp, llama_cpp

    with LlamaCpp(
        Path(model), n_threads=n_threads, n_context=n_tokens + 64, repack=True
    ) as runtime:
        runtime.decode([1])
        runtime.truncate(0)
        prefill_s = _seconds(lambda: runtime.decode(_tokens(n_tokens)))
        context, ids = runtime._context, (llama_cpp.llama_token * n_tokens)(*_tokens(n_tokens))

        def save() -> None:
            if not llama_cpp.llama_state_save_file(context, state.encode(), ids, n_tokens):
                raise RuntimeError("llama.cpp can't save its state")

        def load() -> None:
            n = llama_cpp.ctypes.c_size_t()
            if not llama_cpp.llama_state_load_file(context, state.encode(), ids, n_tokens, n):
                raise RuntimeError("llama.cpp can't load its state")

        save_s = _seconds(save)
        runtime.truncate(0)
        load_s = _seconds(load)
        runtime.n_tokens = n_tokens
        first_s = _seconds(lambda: runtime.decode([1]))
    size = os.path.getsize(state)
    os.unlink(state)
    return {
        "prefill_s": prefill_s,
        "save_s": save_s,
        "load_s": load_s,
        "first_token_s": first_s,
        "disk_bytes": size,
    }


STEPS: dict[str, Callable[[str, str, int, int], dict[str, Any]]] = {
    step.__name__: step for step in (make, open, save, prompt, llama)
}


def _load(model: str, n_tokens: int, n_threads: int) -> Any:
    import edgeqwen

    return edgeqwen.load(model, n_threads=n_threads, max_context=n_tokens + 256)


def _sequence(loaded: Any, session: str) -> Any:
    from edgeqwen.cache.session_file import SessionFile
    from edgeqwen.sessions import identity_of

    identity, path = identity_of(loaded.engine, loaded._file), Path(session)
    exists = path.exists()
    store = SessionFile.open(path, identity) if exists else SessionFile.create(path, identity)
    return loaded.engine.new_sequence(store)


def _tokens(n: int) -> list[int]:
    ids: list[int] = np.random.default_rng(0).integers(0, 100_000, n).tolist()
    return ids


def _resident_bytes() -> int:
    with os.fdopen(os.open("/proc/self/statm", os.O_RDONLY)) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    name, model, file, n_tokens, n_threads = sys.argv[1:]
    print(json.dumps(STEPS[name](model, file, int(n_tokens), int(n_threads))), flush=True)
