"""Threads that share out the pieces of a computation in numpy and in kernels."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

Result = TypeVar("Result")


class Workers:
    """``n_threads`` threads; a context manager.

    Meanwhile, numpy's matrix products stay on the thread that asks for them, in the whole process:
    their library's own threads know nothing of these, and wait for one another spinning, which
    costs a busy machine many times the work.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="edgeqwen-calibrate")

    def __enter__(self) -> "Workers":
        self._limits = threadpool_limits(1, user_api="blas")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._limits.restore_original_limits()

    def do(self, pieces: Iterable[Callable[[], Result]]) -> list[Result]:
        """Does all pieces and returns their results, in their order."""
        return list(self._pool.map(_quietly, pieces))


def _quietly(piece: Callable[[], Result]) -> Result:
    """Does a piece. Activations that overflow are found, and named, in their statistics."""
    with np.errstate(over="ignore", invalid="ignore"):
        return piece()
