"""Bars: seen at a terminal, silent elsewhere."""

import re
import sys

import pytest

from edgeqwen.cli.progress import byte_bar, count_bar
from tests.cli.running import Terminal

CODE = """
import time
from edgeqwen.cli.progress import byte_bar, count_bar
with byte_bar("con[v]ert\\x1b") as move:
    for done in range(0, 5 << 20, 1 << 20):
        move(done, 5 << 20)
        time.sleep(0.1)
with count_bar("compiling") as bar:
    bar(1, 3)
    time.sleep(0.2)
    bar.describe("half\\x1b done")
    bar(2, 3)
    time.sleep(0.2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_at_a_terminal() -> None:
    with Terminal("-c", CODE, program=[sys.executable], COLUMNS="120") as terminal:
        assert terminal.wait_for_end() == 0
        assert "con[v]ert\\x1b" in terminal.output
        assert "4.0/5.0 MiB" in terminal.output
        assert "/s" in terminal.output
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.output)
        assert re.search(r"half\\x1b done .* 2/3 0:00:\d\d 0:00:\d\d left", shown)


def test_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    for bar in (byte_bar, count_bar):
        with bar("x") as move:
            move.describe("y")
            move(1, 2)
    assert capsys.readouterr() == ("", "")
