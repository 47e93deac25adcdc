"""What the tests of session files share."""

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a session may be made."""
    return tmp_path / "session"
