"""Turns of one engine: whoever is broken off, at whatever instruction, leaves the next one free."""

import dis
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from edgeqwen.shared_engine import SharedEngine
from tests.fakes import FakeEngine


class InterruptAt:
    """Raises KeyboardInterrupt after the n-th instruction of one function that may let it in.

    Python looks for signals after calls and jumps back, and where a generator goes on.
    """

    LETS_IN = ("CALL", "JUMP_BACKWARD", "RESUME")

    def __init__(self, function: Callable[..., Any], n: int) -> None:
        self._code, self.left = function.__wrapped__.__code__, n  # type: ignore[attr-defined]
        after, self._places = False, set()
        for instruction in dis.get_instructions(self._code):
            if after:
                self._places.add(instruction.offset)
            after = instruction.opname.startswith(self.LETS_IN)

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.settrace(None)
        return kind is KeyboardInterrupt

    def _trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code is not self._code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti in self._places:
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


def is_free(shared: SharedEngine) -> bool:
    """Whether another thread gets a turn."""
    done = threading.Event()

    def other() -> None:
        shared.new_sequence()
        done.set()

    threading.Thread(target=other, daemon=True).start()
    return done.wait(10)


def test_ctrl_c_at_any_instruction_of_a_turn() -> None:
    n_tried = 0
    while True:
        shared = SharedEngine(FakeEngine(), name="fake")
        interrupt = InterruptAt(SharedEngine._my_turn, n_tried + 1)
        with interrupt:
            shared.new_sequence()
        if interrupt.left > 0:
            break
        n_tried += 1
        assert is_free(shared), n_tried
        shared.new_sequence()
    assert n_tried >= 5
