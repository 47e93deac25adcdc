"""What all tests share: one kernel cache for the whole run, and the data that may be absent."""

import os
import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled kernels in pytest's cache, so that runs share them and the user's stay apart.

    The environment carries the folder to the processes that tests start.
    """
    if "EDGEQWEN_CACHE_DIR" not in os.environ and hasattr(config, "cache"):
        os.environ["EDGEQWEN_CACHE_DIR"] = str(config.cache.mkdir("edgeqwen"))
    # A shell starts what runs in its background deaf to Ctrl-C, and so would be what tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real vocabulary and its published texts, outside of the repository."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which isn't beside this checkout")
    return folder
