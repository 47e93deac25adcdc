"""Ctrl-C at any call in a chat with a session: chat, session and lock go on after it."""

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import edgeqwen
from edgeqwen.cache.verify import verify

ROOT = Path(edgeqwen.__file__).parent
TRACED = (
    "answer_memory",
    "chat",
    "chat_memory",
    "generation",
    "sessions",
    "shared_engine",
    "transcript",
)
FILES = tuple(str(ROOT / f"{name}.py") for name in TRACED)
GREEDY: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1}
# Of the calls; 1 tries all, some hundred for each of what is done.
EVERY = 23

ACTS: dict[str, Callable[[edgeqwen.Model, edgeqwen.Chat, Path], object]] = {
    "send": lambda model, chat, path: list(chat.send("12+30", max_tokens=5)),
    "regenerate": lambda model, chat, path: list(chat.regenerate(max_tokens=5)),
    "edit": lambda model, chat, path: list(chat.edit(2, "12+30", max_tokens=5)),
    "truncate": lambda model, chat, path: chat.truncate(2),
    "fork": lambda model, chat, path: chat.fork(),
    "close": lambda model, chat, path: chat.close(),
    "open": lambda model, chat, path: model.chat(session=path, **GREEDY),
}


@pytest.fixture(scope="module")
def model() -> Iterator[edgeqwen.Model]:
    with edgeqwen.load(n_threads=2) as model:
        yield model


class Interrupt:
    """Raises KeyboardInterrupt when the n-th function of the traced files is called."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.settrace(None)
        return kind is KeyboardInterrupt

    def _trace(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and (name in FILES or name.startswith(str(ROOT / "cache"))):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("what", ACTS)
def test_ctrl_c_at_any_call(model: edgeqwen.Model, tmp_path: Path, what: str) -> None:
    n = n_tried = 0
    while True:
        n += {"close": 1, "fork": 5}.get(what, EVERY)
        path = tmp_path / f"session{n}"
        chat = model.chat(session=path, **GREEDY)
        first = chat.send("37+48", max_tokens=6).text
        list(chat.send("What is edgeqwen?", max_tokens=6))
        if what == "open":
            chat.close()
        interrupt = Interrupt(n)
        with interrupt:
            ACTS[what](model, chat, path)
        if interrupt.left > 0:
            break
        n_tried += 1
        if what == "open":
            gc.collect()  # an exception may hold what was half open
            chat = model.chat(session=path, **GREEDY)
        before = [dict(message) for message in chat.messages]
        assert [message["content"] for message in before[:2]] == ["37+48", first]
        fresh = model.chat(**GREEDY)
        fresh.messages = [dict(message) for message in before]
        assert chat.send("And?", max_tokens=4).text == fresh.send("And?", max_tokens=4).text
        chat.close()
        assert verify(path).problems == ()
        again = model.chat(session=path, **GREEDY)
        assert again.messages == chat.messages
        again.close()
    assert n_tried >= 2
