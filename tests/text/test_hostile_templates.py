"""Hostile chat templates end in an error, in bounded time and memory."""

import functools
import json
import subprocess
import sys
import time

import pytest

from edgeqwen.errors import TemplateError
from edgeqwen.text.chat_template import ChatTemplate
from tests.text.hostile_templates import DEPTH, GROWTH, HOSTILE, LOOPS, SECONDS

MESSAGES = [{"role": "user", "content": "x"}]
GENERAL = "takes too long or makes too much text for this conversation; it is broken or hostile"


@functools.cache
def outcomes() -> dict[str, tuple[float, str | None]]:
    """Tries all of them in a process with little memory."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.text.hostile_templates"],
        capture_output=True,
        text=True,
        timeout=len(HOSTILE) * SECONDS,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    result: dict[str, tuple[float, str | None]] = json.loads(process.stdout)
    return result


@pytest.mark.parametrize("name", HOSTILE)
def test_ends_in_an_error(name: str) -> None:
    seconds, message = outcomes()[name]
    assert message is not None
    assert message.startswith("chat template")
    assert len(message) < 500
    # Hundreds of times what it takes on an idle machine.
    assert seconds < 20


@pytest.mark.parametrize(
    "source",
    [
        LOOPS["filtered by a filter"],
        LOOPS["macro that calls twice"],
        LOOPS["large body"],
        GROWTH["join of a generator"],
        DEPTH["print"],
    ],
)
def test_the_whole_budget_lasts_for_seconds(source: str) -> None:
    began = time.thread_time()
    with pytest.raises(TemplateError, match=GENERAL):
        ChatTemplate(source).render(MESSAGES)
    assert time.thread_time() - began < 10
