"""Forgetting tokens in the middle of a sequence, on the real engine: against the twin."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.engine import Engine
from edgeqwen.errors import OptionError
from tests.engines import F32_CACHE, open_engine, oracle, random_tokens, write_model
from tests.oracles import kernels as twins
from tests.oracles.distributions import deviation
from tests.oracles.qwen2 import Qwen2, rope_frequencies

YARN = {
    "qwen2.rope.scaling.type": "yarn",
    "qwen2.rope.scaling.factor": 4.0,
    "qwen2.rope.scaling.original_context_length": 64,
}


class Remembering:
    """The twin with the keys and values of what it has read; they can be shifted."""

    def __init__(self, twin: Qwen2) -> None:
        self.twin = twin
        self.past: dict[str, np.ndarray] = {}

    def read(self, tokens: list[int]) -> np.ndarray:
        record: dict[str, np.ndarray] = {}
        logits = self.twin.logits(tokens, record, self.past)
        self.past = {name: x for name, x in record.items() if name.endswith(("k_rope", ".v"))}
        return logits

    def shift(self, keep: int, n_dropped: int) -> None:
        frequencies, _ = rope_frequencies(self.twin.config)
        for i in range(self.twin.config.n_layers):
            names = f"blk.{i}.k_rope", f"blk.{i}.v"
            k, v = (self.past[name].transpose(1, 0, 2) for name in names)
            shifted = twins.shifted(k, v, keep, n_dropped, frequencies)
            for name, x in zip(names, shifted, strict=True):
                self.past[name] = x.transpose(1, 0, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shift")


# The engine's angles are float32: at position 700 they are off by 3e-5, and a shift keeps that.
@pytest.mark.parametrize(
    ("options", "cache_type", "error"),
    [
        pytest.param({"tied": False, **F32_CACHE}, "f32", 1e-4, id="F32"),
        pytest.param({"metadata": YARN, **F32_CACHE}, "f32", 1e-4, id="YaRN"),
        pytest.param({"types": "BF16"}, "f16", 1e-3, id="f16"),
        # Each shift rounds to 8 bits once more; biases that are kept apart move exactly.
        pytest.param({"types": "BF16", "k_bias": 30.0}, "q8_0", 0.1, id="q8_0"),
    ],
)
def test_against_the_twin(
    folder: Path, options: dict[str, Any], cache_type: str, error: float
) -> None:
    """Several shifts, by whole segments, tiles and neither; new tokens are read between them."""
    path = write_model(folder / "tiny.gguf", **options)
    tokens = random_tokens(1000)
    expected = Remembering(oracle(path, cache_type="f16" if cache_type == "q8_0" else cache_type))
    with open_engine(path, cache_type=cache_type) as engine:
        sequence = engine.new_sequence()
        read = 700
        expected.read(tokens[:read])
        engine.prefill(sequence, tokens[:read])
        held = tokens[:read]
        for keep, n_dropped in ((10, 256), (3, 33), (70, 7), (0, 200)):
            engine.shift(sequence, keep, n_dropped)
            expected.shift(keep, n_dropped)
            held = held[:keep] + held[keep + n_dropped :]
            assert sequence.tokens == held
            new = tokens[read : read + 20]
            read += 20
            rows = expected.read(new)
            assert deviation(engine.prefill(sequence, new[:-1]), rows[-2]) < error
            assert deviation(engine.decode(sequence, new[-1]), rows[-1]) < error
            held += new
        assert sequence.tokens == held
        sequence.close()


@pytest.fixture(scope="module")
def engine(folder: Path) -> Any:
    path = write_model(folder / "q4_0.gguf", types="Q4_0", max_context=600)
    with open_engine(path) as opened:
        yield opened


def test_threads_change_no_bit(engine: Engine, folder: Path) -> None:
    found = []
    for n_threads in (1, 3):
        with open_engine(folder / "q4_0.gguf", n_threads=n_threads) as other:
            sequence = other.new_sequence()
            other.prefill(sequence, random_tokens(400))
            other.shift(sequence, 5, 100)
            found.append(other.decode(sequence, 7).copy())
            sequence.close()
    np.testing.assert_array_equal(*found)


def test_dropping_the_end_is_truncating(engine: Engine) -> None:
    tokens = random_tokens(90)
    sequences = [engine.new_sequence() for _ in range(2)]
    for sequence in sequences:
        engine.prefill(sequence, tokens)
    engine.shift(sequences[0], 40, 50)
    sequences[1].truncate(40)
    assert sequences[0].tokens == tokens[:40]
    found = [engine.decode(sequence, 7).copy() for sequence in sequences]
    np.testing.assert_array_equal(*found)
    engine.shift(sequences[0], 5, 0)
    assert sequences[0].tokens == [*tokens[:40], 7]
    for sequence in sequences:
        sequence.close()


def test_a_full_sequence_goes_on_after_each_shift(engine: Engine) -> None:
    """And takes no more memory."""
    sequence = engine.new_sequence()
    tokens = random_tokens(600)
    engine.prefill(sequence, tokens)
    store = sequence.store
    segments = [segment.address for segment in store.segments]
    for _ in range(3):
        engine.shift(sequence, 20, 290)
        assert sequence.n_tokens == 310
        more = random_tokens(290)
        logits = engine.prefill(sequence, more[:-1])
        assert np.isfinite(logits).all()
        engine.decode(sequence, more[-1])
        assert sequence.n_tokens == engine.max_context
        assert sequence.tokens[:20] == tokens[:20]
        found = [segment.address for segment in store.segments]
        assert len(found) == 3
        assert found[:2] == segments[:2]  # the third was given back, and made anew
    sequence.close()


@pytest.mark.parametrize(("keep", "n_dropped"), [(-1, 5), (0, -1), (0, 11), (8, 3), (11, 0)])
def test_tokens_that_are_not_there(engine: Engine, keep: int, n_dropped: int) -> None:
    sequence = engine.new_sequence()
    engine.prefill(sequence, random_tokens(10))
    message = f"can't forget {n_dropped} tokens after {keep}: the sequence holds 10"
    with pytest.raises(OptionError, match=message):
        engine.shift(sequence, keep, n_dropped)
    assert sequence.n_tokens == 10
    sequence.close()


def test_the_sequence_of_another_model(engine: Engine, folder: Path) -> None:
    path = write_model(folder / "other.gguf", n_layers=1)
    with open_engine(path) as other, pytest.raises(OptionError, match="another model"):
        engine.shift(other.new_sequence(), 0, 0)


def test_the_bytes_of_a_context(engine: Engine) -> None:
    """Whole segments of 256 positions: 2 layers, 1 KV head of 64, K and V in 2 bytes."""
    per_segment = 256 * 2 * 64 * 2 * 2
    assert [engine.cache_bytes(n) for n in (0, 1, 256, 257)] == [
        0,
        per_segment,
        per_segment,
        2 * per_segment,
    ]
