"""A model without weights: its engine says what a test tells it to, one byte for each token."""

import codecs
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgeqwen.api import Model
from edgeqwen.model.wanted import Wanted
from edgeqwen.model.work import Work
from edgeqwen.sampling import SamplingOptions

EOS = 256
IM_START = 257
VOCAB_SIZE = 260
SPECIAL = {"<|im_end|>": EOS, "<|im_start|>": IM_START}


class FakeSequence:
    """Remembers its tokens and where the last prompt ended."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.prompt_end = 0
        self.closed = False

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    n_in_order = n_tokens

    def truncate(self, n: int) -> None:
        assert 0 <= n <= len(self.tokens)
        assert not self.closed
        del self.tokens[n:]

    def fork(self) -> "FakeSequence":
        copy = FakeSequence()
        copy.tokens, copy.prompt_end = list(self.tokens), self.prompt_end
        return copy

    def forget(self, first: int, n: int) -> None:
        del self.tokens[first : first + n]

    def close(self) -> None:
        self.closed = True

    abandon = close


class FakeEngine:
    """Answers every prompt with the ids of ``script``; after its end with the end of generation.

    ``before_step`` is called at the beginning of every step and may do anything.
    """

    def __init__(self, script: bytes | Sequence[int] = b"", *, max_context: int = 1000) -> None:
        self.script = [*script]
        self.config = SimpleNamespace(
            vocab_size=VOCAB_SIZE, n_layers=1, name="fake", max_context=1000
        )
        self.max_context = max_context
        self.n_threads = 1
        self.work = Work(1_000_000, 2_000_000, 0, 4_000, 8_000)
        self.weight_bytes = 1_000_000
        self.sequences: list[FakeSequence] = []
        self.prefilled: list[list[int]] = []
        self.shifts: list[tuple[int, int]] = []
        self.held_at_shifts: list[int] = []
        self.n_decoded = 0
        self.wanted: list[Wanted | None] = []
        self.running = False
        self.closed = False
        self.step_s = 0.0
        self.before_step: Callable[[], None] = lambda: None

    def new_sequence(self, store: object = None) -> FakeSequence:
        self.sequences.append(FakeSequence())
        return self.sequences[-1]

    def prefill(
        self,
        sequence: FakeSequence,
        tokens: Sequence[int],
        *,
        cancelled: Callable[[], bool] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        assert len(tokens) > 0
        self.prefilled.append(list(tokens))
        # In two batches, as a real engine does it.
        half = len(tokens) // 2
        for batch, done in ((tokens[:half], half), (tokens[half:], len(tokens))):
            self._step(sequence, batch)
            if progress is not None:
                progress(done, len(tokens))
            if cancelled is not None and cancelled():
                break
        sequence.prompt_end = len(sequence.tokens)
        return self._next(sequence)

    def decode(
        self, sequence: FakeSequence, token: int, wanted: Wanted | None = None
    ) -> np.ndarray:
        self.n_decoded += 1
        self.wanted.append(wanted)
        self._step(sequence, [token])
        return self._next(sequence)

    def shift(self, sequence: FakeSequence, keep: int, n_dropped: int) -> None:
        assert not sequence.closed
        assert 0 <= keep < keep + n_dropped <= sequence.n_tokens
        self.shifts.append((keep, n_dropped))
        self.held_at_shifts.append(sequence.n_tokens)
        sequence.forget(keep, n_dropped)
        sequence.prompt_end -= n_dropped

    def cache_bytes(self, n_tokens: int) -> int:
        return n_tokens * self.work.cache_bytes

    def logits(self, sequence: FakeSequence, tokens: Sequence[int]) -> np.ndarray:
        self._step(sequence, tokens)
        return np.eye(VOCAB_SIZE, dtype=np.float32)[list(tokens)]

    def close(self) -> None:
        assert not self.running
        self.closed = True

    def _step(self, sequence: FakeSequence, tokens: Sequence[int]) -> None:
        assert not self.closed
        assert not sequence.closed
        assert not self.running, "two threads run a step at once"
        self.running = True
        try:
            time.sleep(self.step_s)
            self.before_step()
            sequence.tokens += tokens
            assert len(sequence.tokens) <= self.max_context
        finally:
            self.running = False

    def _next(self, sequence: FakeSequence) -> np.ndarray:
        position = len(sequence.tokens) - sequence.prompt_end
        logits = np.full(VOCAB_SIZE, -100.0, np.float32)
        logits[self.script[position] if position < len(self.script) else EOS] = 100
        return logits


class FakeDecoder:
    """Gives characters when their bytes are complete."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(bytes([token]) if token < 256 else b"?")

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class FakeTokenizer:
    """One token for each byte, and two special ones."""

    vocab_size = VOCAB_SIZE
    eos_ids = frozenset({EOS})

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        ids: list[int] = []
        while text:
            special = next((s for s in SPECIAL if allow_special and text.startswith(s)), None)
            ids += [SPECIAL[special]] if special else text[0].encode()
            text = text[len(special) :] if special else text[1:]
        return ids

    def token_bytes(self, id: int) -> bytes:
        special = {number: text.encode() for text, number in SPECIAL.items()}
        return bytes([id]) if id < 256 else special.get(id, b"")

    def stream(self, *, skip_special: bool = False) -> FakeDecoder:
        return FakeDecoder()


class FakeTemplate:
    """ChatML."""

    def encode(
        self,
        tokenizer: FakeTokenizer,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Any = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        ids: list[int] = []
        for message in messages:
            text = f"{message['role']}\n{message['content']}"
            ids += [IM_START, *tokenizer.encode(text), EOS, ord("\n")]
        return ids + [IM_START, *b"assistant\n"] * add_generation_prompt


def fake_model(
    script: bytes | Sequence[int] = b"", *, max_context: int = 1000, **sampling: Any
) -> tuple[Model, FakeEngine]:
    """Returns a model and its engine; the sampling is greedy unless the test asks otherwise."""
    engine = FakeEngine(script, max_context=max_context)
    file = SimpleNamespace(path=Path("fake.gguf"), metadata={}, close=lambda: None)
    options = SamplingOptions(**{"temperature": 0.0, "repetition_penalty": 1.0, **sampling})
    model = Model(engine, FakeTokenizer(), file, options)  # type: ignore[arg-type]
    model._template = FakeTemplate()  # type: ignore[assignment]
    return model, engine
