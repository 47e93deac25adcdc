"""Sessions whose writer is killed, or broken off otherwise: nothing that was committed is lost.

EDGEQWEN_TEST_KILLS is how often a writer on the real engine is killed at a random instant, and a
share of the lines at which one without an engine is broken off: 500 tries a few hundred of them,
100,000 every one.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.cache import Sequence
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.verify import verify
from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile
from edgeqwen.sessions import identity_of
from tests.engines import write_model
from tests.session_writer import MAX_CONTEXT
from tests.simd.processes import ROOT

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(os.name == "nt", reason="needs signals and processes of POSIX"),
]
KILLS = int(os.environ.get("EDGEQWEN_TEST_KILLS", "12"))
# Of a writer's life without an engine.
LINES = 8100


@pytest.mark.parametrize(
    ("kind", "share"), [("kill", 1), ("interrupt", 1), ("power", 0.5)], ids=str
)
def test_a_session_broken_off_at_any_line_goes_on(tmp_path: Path, kind: str, share: float) -> None:
    step = max(1, int(LINES / (share * KILLS)))
    first = random.Random(KILLS).randint(1, step)
    done = subprocess.run(
        [sys.executable, "-m", "tests.cache.broken_off", tmp_path, kind, str(first), str(step)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=7200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["lines"] > 0.8 * LINES, "LINES is too large: some are never tried"
    assert sum(found["hit"].values()) >= min(LINES, share * KILLS) * 0.8


@dataclass(frozen=True)
class State:
    """What a session holds: tokens and transcript, and how the keys and values came to be.

    ``history``: operations of an engine; only where tokens in the middle were forgotten does it
    matter which.
    """

    tokens: list[int] = field(default_factory=list)
    transcript: bytes = b""
    history: tuple[tuple[str, Any], ...] = ()

    def read(self, added: list[int]) -> "State":
        history = (*self.history, ("read", added))
        return State(self.tokens + added, self.transcript, history)

    def truncated(self, n: int) -> "State":
        return State(self.tokens[:n], self.transcript, (*self.history, ("truncate", n)))

    def shifted(self, keep: int, n: int) -> "State":
        tokens = self.tokens[:keep] + self.tokens[keep + n :]
        return State(tokens, self.transcript, (*self.history, ("shift", (keep, n))))

    def make(self, engine: Engine) -> tuple[Sequence, np.ndarray]:
        """Returns a sequence in memory with the same history, and the logits after it."""
        sequence = engine.new_sequence()
        if not any(what == "shift" for what, _ in self.history):
            return sequence, engine.prefill(sequence, self.tokens).copy()
        for what, value in self.history:
            if what == "read" and value:
                engine.prefill(sequence, value)
            elif what == "truncate":
                sequence.truncate(value)
            elif what == "shift":
                engine.shift(sequence, *value)
        assert sequence.tokens == self.tokens
        return sequence, read_last_again(engine, sequence)

    def read_last_again(self) -> "State":
        return self.truncated(len(self.tokens) - 1).read(self.tokens[-1:])


class Writer:
    """What the processes that write a session have logged so far."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.path, self.log, self._model = folder / "session", folder / "log", model
        self.hit: Counter[str] = Counter()
        self.state = State()

    def run_and_kill(self, seed: int, after_s: float) -> list[State]:
        """Starts one and kills it so long after it has begun to write.

        Returns what the session must hold: one of these.
        """
        self.log.unlink(missing_ok=True)
        files = [self._model, self.path, self.log]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.session_writer", *files, str(seed)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while process.poll() is None and not (self.log.exists() and self.log.stat().st_size):
                time.sleep(0.001)
            time.sleep(after_s)
        finally:
            process.kill()
            errors = process.communicate()[1]
        assert process.returncode == -9, errors
        # The last line may be cut off, and then its operation wasn't begun.
        lines = self.log.read_bytes().split(b"\n")[:-1]
        states = [self.state]
        for line in lines:
            states = self._after(json.loads(line), states[-1])
        self.hit[json.loads(lines[-1])["what"]] += 1
        return states

    @staticmethod
    def _after(operation: dict[str, Any], state: State) -> list[State]:
        """Returns what may be found while an operation runs, the last when it is done."""
        match operation["what"]:
            case "prefill" | "decode":
                added = operation["tokens"]
                ends = [*range(0, len(added), 256), len(added)]
                return [state.read(added[:n]) for n in ends]
            case "truncate":
                return [state, state.truncated(operation["n"])]
            case "shift":
                return [state, state.shifted(operation["keep"], operation["n"])]
            case "transcript":
                return [state, replace(state, transcript=operation["text"].encode())]
            case _:
                return [state]


def test_a_writer_killed_at_random_instants_loses_nothing(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", types="Q8_0", max_context=MAX_CONTEXT)
    writer = Writer(tmp_path, model)
    delays = random.Random(7)
    n_continued = 0
    with GgufFile.open(model) as file:
        engine = Engine(file, n_threads=2, max_context=MAX_CONTEXT)
        identity = identity_of(engine, file)
        for seed in range(KILLS):
            states = writer.run_and_kill(seed, delays.choice((0.05, 0.2, 0.8)) * delays.random())
            if not writer.path.exists():
                assert states == [State()]
                continue
            assert verify(writer.path).problems == ()
            store = SessionFile.open(writer.path, identity)
            found = store.tokens, store.transcript
            state = next((s for s in states if (s.tokens, s.transcript) == found), None)
            assert state is not None, (seed, len(found[0]), [len(s.tokens) for s in states])
            n_continued += goes_on(engine, store, state)
            assert verify(writer.path).problems == ()
            # Now and then from the beginning.
            writer.state = state.read_last_again() if state.tokens else state
            if seed % 10 == 9:
                writer.path.unlink()
                writer.state = State()
        engine.close()
    print(f"{KILLS} kills, {n_continued} sessions continued, hit: {dict(writer.hit)}")
    assert n_continued > KILLS // 3


def read_last_again(engine: Engine, sequence: Sequence) -> np.ndarray:
    """Returns the logits after the last token, which aren't kept."""
    last = sequence.tokens[-1]
    sequence.truncate(sequence.n_tokens - 1)
    return engine.prefill(sequence, [last]).copy()


def goes_on(engine: Engine, store: SessionFile, state: State) -> bool:
    """Continues a session by 8 tokens, as a sequence in memory, and takes them back."""
    sequence, tokens = engine.new_sequence(store), state.tokens
    if not tokens:
        sequence.close()
        return False
    fresh, expected = state.make(engine)
    found = read_last_again(engine, sequence)
    for _ in range(8):
        np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))
        token = int(expected.argmax())
        expected = engine.decode(fresh, token).copy()
        found = engine.decode(sequence, token).copy()
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))
    sequence.truncate(len(tokens))
    sequence.close()
    fresh.close()
    return True
