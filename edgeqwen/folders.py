"""Where edgeqwen keeps what it can make again, and what it can't: sessions."""

import os
from pathlib import Path


def user_sessions() -> Path:
    """Returns $EDGEQWEN_SESSIONS_DIR, or else a folder of the user's data; it may not exist yet."""
    root = os.environ.get("EDGEQWEN_SESSIONS_DIR")
    if root:
        return Path(root)
    import platformdirs

    return Path(platformdirs.user_data_dir("edgeqwen", appauthor=False)) / "sessions"


def user_prefixes() -> Path:
    """Returns the folder of prompts that were read before, within the user's cache."""
    return user_cache() / "prefixes"


def user_cache() -> Path:
    """Returns $EDGEQWEN_CACHE_DIR, or else the user's cache folder; it may not exist yet."""
    root = os.environ.get("EDGEQWEN_CACHE_DIR")
    if root:
        return Path(root)
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgeqwen", appauthor=False))
