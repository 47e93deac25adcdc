"""How many threads a conversion uses."""

import os

from edgeqwen.errors import OptionError

MAX_THREADS = 1024


def thread_count(n_threads: int | None) -> int:
    """Returns the number that is asked for, or as many as this process may use processors.

    Raises OptionError for what is no number from 1 to 1024.
    """
    if n_threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    is_number = isinstance(n_threads, int) and not isinstance(n_threads, bool)
    if not is_number or not 1 <= n_threads <= MAX_THREADS:
        raise OptionError(
            f"n_threads is {n_threads!r}, expected a whole number from 1 to {MAX_THREADS}"
        )
    return n_threads
