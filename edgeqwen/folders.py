"""Where edgeqwen keeps what it can make again, and what it can't: sessions."""

import contextlib
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


def keep_in_cache(path: Path, data: bytes) -> None:
    """Writes a file of the cache: whoever reads it finds all or nothing.

    Nothing happens where it can't be written: what is there can be made again.
    """
    with contextlib.suppress(OSError):
        import tempfile  # takes as long as loading some kernels

        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
