"""Ctrl-C as a wish to stop early, before it is one to stop at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_ctrl_c(stop: Callable[[], object]) -> Iterator[None]:
    """Lets the first Ctrl-C call ``stop``; a second one is a KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop_early(signum: int, frame: FrameType | None) -> None:
        stop()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop_early)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
