"""Where edgeqwen keeps what it can make again: compiled kernels."""

import os
from pathlib import Path


def user_cache() -> Path:
    """Returns $EDGEQWEN_CACHE_DIR, or else the user's cache folder; it may not exist yet."""
    root = os.environ.get("EDGEQWEN_CACHE_DIR")
    if root:
        return Path(root)
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgeqwen", appauthor=False))
