"""Sessions by the names that users give them."""

from pathlib import Path


def session_file(name: str) -> Path:
    """Returns the file of a session that may not exist yet; its folder does.

    Raises DiskError.
    """
    from edgeqwen.errors import DiskError
    from edgeqwen.session_files import session_path

    path = session_path(name)
    if path.name != name and Path(name) != path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise DiskError(
                f"{path.parent}: can't be made: {error.strerror or error}; set "
                "EDGEQWEN_SESSIONS_DIR to a folder that can be written"
            ) from error
    return path
