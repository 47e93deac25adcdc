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
    bar(1, 4)
    time.sleep(0.4)
    bar(2, 4)
    time.sleep(0.2)
    bar.describe("half\\x1b done")
    bar(3, 4)
    time.sleep(0.2)
with count_bar("a moment") as bar:
    for done in range(1000):
        bar(done, 1000)
with count_bar("taken away") as bar:
    time.sleep(0.4)
    bar.close()
    bar(1, 2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_at_a_terminal() -> None:
    with Terminal("-c", CODE, program=[sys.executable], COLUMNS="120") as terminal:
        assert terminal.wait_for_end() == 0
        assert "con[v]ert\\x1b" in terminal.output
        assert "4.0/5.0 MiB" in terminal.output
        assert "/s" in terminal.output
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.output)
        assert re.search(r"half\\x1b done .* 3/4 0:00:\d\d 0:00:\d\d left", shown)
        # What is done soon shows nothing, and neither does what is over.
        assert "a moment" not in shown
        assert "taken away" not in shown


def test_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    for bar in (byte_bar, count_bar):
        with bar("x") as move:
            move.describe("y")
            move(1, 2)
    assert capsys.readouterr() == ("", "")
