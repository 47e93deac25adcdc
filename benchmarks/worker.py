"""A runtime in a process of its own, driven over pipes with one JSON object per line.

While one worker measures, the others sleep in a read of their standard input, so that runtimes
share the CPU only in turn and nothing of one (threads, allocator, page faults) slows the other.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.memory import peak_rss_bytes

ROOT = Path(__file__).resolve().parents[1]


class Worker:
    """The caller's end: starts the process, sends requests, waits for answers."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def open(
        self,
        path: Path,
        *,
        n_threads: int,
        n_context: int,
        n_prompt: int,
        load: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Loads a file and reads a short prompt; ``load`` is more for ``edgeqwen.load``.

        Returns ``load_s`` (imports and loading), ``first_token_s`` (from the same start to the
        prompt's last logits) and ``peak_rss_bytes``.
        """
        return self._ask(
            do="open",
            runtime=self.runtime,
            path=str(path),
            n_threads=n_threads,
            n_context=n_context,
            n_prompt=n_prompt,
            load=dict(load or {}),
        )

    def work(self) -> dict[str, int]:
        """Returns the fields of ``edgeqwen.model.work.Work``, which only edgeqwen tells."""
        return self._ask(do="work")

    def prefill(self, depth: int, n: int) -> float:
        """Returns the seconds for n tokens read at once behind a cache of ``depth`` tokens."""
        return float(self._ask(do="prefill", depth=depth, n=n)["seconds"])

    def decode(self, depth: int, n: int) -> float:
        """Returns the seconds for n tokens one after the other behind ``depth`` tokens."""
        return float(self._ask(do="decode", depth=depth, n=n)["seconds"])

    def close(self) -> None:
        """Ends the process: its input closes, and it leaves."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"the worker of {self.runtime} ended with code {code}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.runtime}: {answer['error']}")
        return answer


def serve() -> None:
    """The worker's end: answers requests until its standard input closes."""
    # Whatever a library prints goes to standard error; the answers keep the pipe to themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    bench = _Bench()
    requests: dict[str, Callable[..., Mapping[str, float]]] = {
        "open": bench.open,
        "work": bench.work,
        "prefill": bench.prefill,
        "decode": bench.decode,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer: dict[str, object] = dict(requests[request.pop("do")](**request))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    bench.close()


class _Bench:
    """Measures one runtime. The tokens are random, the same ones for every runtime."""

    def __init__(self) -> None:
        self._runtime: Any = None
        self._tokens: list[int] = []

    def open(
        self,
        runtime: str,
        path: str,
        n_threads: int,
        n_context: int,
        n_prompt: int,
        load: Mapping[str, Any],
    ) -> dict[str, float]:
        start = time.perf_counter()
        from benchmarks.runtimes import open_runtime

        self._runtime = open_runtime(
            runtime, Path(path), n_threads=n_threads, n_context=n_context, load=load
        )
        load_s = time.perf_counter() - start
        random = np.random.default_rng(0)
        self._tokens = random.integers(0, self._runtime.vocab_size, n_context).tolist()
        self._runtime.append(self._tokens[:n_prompt])
        return {
            "load_s": load_s,
            "first_token_s": time.perf_counter() - start,
            "peak_rss_bytes": peak_rss_bytes(),
        }

    def work(self) -> dict[str, int]:
        found: dict[str, int] = self._runtime.work()
        return found

    def prefill(self, depth: int, n: int) -> dict[str, float]:
        self._move_to(depth)
        tokens = self._tokens[depth : depth + n]
        start = time.perf_counter()
        self._runtime.append(tokens)
        return {"seconds": time.perf_counter() - start}

    def decode(self, depth: int, n: int) -> dict[str, float]:
        self._move_to(depth)
        tokens = self._tokens[depth : depth + n]
        start = time.perf_counter()
        for token in tokens:
            self._runtime.append([token])
        return {"seconds": time.perf_counter() - start}

    def close(self) -> None:
        if self._runtime is not None:
            self._runtime.close()

    def _move_to(self, depth: int) -> None:
        if self._runtime.n_tokens > depth:
            self._runtime.truncate(depth)
        elif self._runtime.n_tokens < depth:
            self._runtime.append(self._tokens[self._runtime.n_tokens : depth])


if __name__ == "__main__":
    serve()
