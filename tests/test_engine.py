"""The engine against the plain network, and against itself: batches, threads, truncation."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.engine import PREFILL_TOKENS, Engine, Sequence
from edgeqwen.errors import ClosedError, ContextFullError, OptionError
from edgeqwen.gguf_file import GgufFile
from tests.gguf_samples import write_tiny_gguf
from tests.oracles.blocks import read_weights
from tests.oracles.qwen2 import Qwen2

VOCAB = 331
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 128,
    "intermediate_size": 160,
    "n_heads": 4,
    "n_kv_heads": 2,
    "max_context": 700,
}
TOKENS = [int(t) for t in np.random.default_rng(7).integers(0, VOCAB, 70)]


def write(path: Path, *, types: str = "F32", tied: bool = True) -> Path:
    write_tiny_gguf(path, types=types, tied=tied, k_bias=5.0, **SIZES)
    return path


def oracle(path: Path, types: str, *, f16_cache: bool, tokens: list[int] = TOKENS) -> np.ndarray:
    weights = read_weights(path)
    matrices = [name for name, w in weights.items() if w.ndim == 2]
    int8 = matrices if types.startswith("Q") else ()
    with GgufFile.open(path) as file:
        return Qwen2(file.config(), weights, int8=int8, f16_cache=f16_cache).logits(tokens)


def opened(path: Path, **options: object) -> Engine:
    with GgufFile.open(path) as file:
        return Engine(file, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = opened(write(tmp_path_factory.mktemp("model") / "q4_0.gguf", types="Q4_0"))
    yield engine
    engine.close()


@pytest.fixture
def sequence(engine: Engine) -> Iterator[Sequence]:
    sequence = engine.new_sequence()
    yield sequence
    sequence.close()


def greedy(engine: Engine, sequence: Sequence, n: int) -> list[int]:
    logits = engine.prefill(sequence, TOKENS)
    found = []
    for _ in range(n):
        found.append(int(np.argmax(logits)))
        logits = engine.decode(sequence, found[-1])
    return found


class TestAgainstTheOracle:
    # Float matrices: only the order of float32 additions differs.
    @pytest.mark.parametrize("tied", [True, False])
    def test_f32_is_the_plain_network(self, tmp_path: Path, tied: bool) -> None:
        path = write(tmp_path / "f32.gguf", tied=tied)
        with_f32_cache = opened(path, cache_type="f32")
        logits = with_f32_cache.logits(with_f32_cache.new_sequence(), TOKENS)
        with_f32_cache.close()
        expected = oracle(path, "F32", f16_cache=False)
        assert np.abs(logits - expected).max() < 2e-5 * np.abs(expected).max()

    # A value that lies on the border of two roundings may fall to the other side than in the
    # oracle, and changes all positions after it. So most tokens agree closely where nothing comes
    # before them, and long texts agree roughly.
    @pytest.mark.parametrize("types", ["F16", "BF16", "Q8_0", "Q4_0"])
    def test_rounded_types_follow_the_same_roundings(self, tmp_path: Path, types: str) -> None:
        path = write(tmp_path / "model.gguf", types=types)
        rounded = opened(path)
        logits = rounded.logits(rounded.new_sequence(), TOKENS)
        first = np.array([rounded.decode(rounded.new_sequence(), t).copy() for t in TOKENS])
        rounded.close()
        expected = oracle(path, types, f16_cache=True)
        alone = np.concatenate([oracle(path, types, f16_cache=True, tokens=[t]) for t in TOKENS])
        largest = np.abs(expected).max()
        assert np.median(np.abs(first - alone).max(axis=1)) < 1e-5 * largest
        assert np.abs(first - alone).max() < 0.04 * largest
        assert np.abs(logits - expected).max() < 0.04 * largest


class TestSteps:
    def test_one_token_at_a_time_gives_the_bits_of_a_batch(self, engine: Engine) -> None:
        one, many = engine.new_sequence(), engine.new_sequence()
        batch = engine.logits(many, TOKENS)
        for token, expected in zip(TOKENS, batch, strict=True):
            np.testing.assert_array_equal(engine.decode(one, token), expected)

    def test_prefill_gives_the_logits_of_the_last_token(
        self, engine: Engine, sequence: Sequence
    ) -> None:
        last = engine.prefill(sequence, TOKENS).copy()
        np.testing.assert_array_equal(last, engine.logits(engine.new_sequence(), TOKENS)[-1])
        assert sequence.tokens == TOKENS

    def test_a_prompt_in_several_chunks(self, engine: Engine, sequence: Sequence) -> None:
        prompt = (TOKENS * 9)[: 2 * PREFILL_TOKENS + 5]
        seen: list[tuple[int, int]] = []
        last = engine.prefill(sequence, prompt, progress=lambda *n: seen.append(n)).copy()
        n = len(prompt)
        assert seen == [(PREFILL_TOKENS, n), (2 * PREFILL_TOKENS, n), (n, n)]
        other = engine.new_sequence()
        engine.prefill(other, prompt[:-1])
        expected = engine.decode(other, prompt[-1])
        # One token's attention is summed up every 256 positions, a batch's in one go.
        np.testing.assert_allclose(last, expected, atol=1e-4 * np.abs(expected).max())

    @pytest.mark.parametrize("n_threads", [1, 3])
    def test_the_number_of_threads_changes_nothing(
        self, engine: Engine, sequence: Sequence, tmp_path: Path, n_threads: int
    ) -> None:
        other = opened(write(tmp_path / "model.gguf", types="Q4_0"), n_threads=n_threads)
        assert other.n_threads == n_threads
        logits = other.logits(other.new_sequence(), TOKENS)
        np.testing.assert_array_equal(logits, engine.logits(sequence, TOKENS))
        other.close()

    def test_truncating_and_going_on_gives_the_same_bits(
        self, engine: Engine, sequence: Sequence
    ) -> None:
        engine.prefill(sequence, TOKENS)
        engine.prefill(sequence, TOKENS[::-1])
        sequence.truncate(40)
        assert sequence.tokens == TOKENS[:40]
        again = engine.prefill(sequence, TOKENS[40:]).copy()
        np.testing.assert_array_equal(again, engine.prefill(engine.new_sequence(), TOKENS))

    def test_two_sequences_take_turns(self, engine: Engine) -> None:
        alone = greedy(engine, engine.new_sequence(), 8)
        first, second = engine.new_sequence(), engine.new_sequence()
        found: tuple[list[int], list[int]] = ([], [])
        logits = [engine.prefill(s, TOKENS).copy() for s in (first, second)]
        for _ in range(8):
            for i, s in enumerate((first, second)):
                found[i].append(int(np.argmax(logits[i])))
                logits[i] = engine.decode(s, found[i][-1]).copy()
        assert found == (alone, alone)

    def test_cancelling_keeps_what_was_read(self, engine: Engine, sequence: Sequence) -> None:
        engine.prefill(sequence, TOKENS * 5, cancelled=lambda: True)
        assert sequence.tokens == (TOKENS * 5)[:PREFILL_TOKENS]

    def test_weights_that_are_no_numbers_show_in_the_logits(self, tmp_path: Path) -> None:
        path = tmp_path / "nan.gguf"
        norm = np.full(128, np.nan, np.float32)
        write_tiny_gguf(path, types="Q4_0", tensors={"blk.0.ffn_norm.weight": norm}, **SIZES)
        broken = opened(path)
        assert np.isnan(broken.prefill(broken.new_sequence(), TOKENS)).all()
        broken.close()


class TestRefusals:
    def test_more_than_the_context_holds(self, engine: Engine, sequence: Sequence) -> None:
        engine.prefill(sequence, TOKENS)
        with pytest.raises(ContextFullError, match=r"700 more tokens after 70 .* context of 700"):
            engine.prefill(sequence, TOKENS * 10)
        assert sequence.tokens == TOKENS

    @pytest.mark.parametrize("token", [-1, VOCAB, 2**40])
    def test_ids_outside_the_vocabulary(
        self, engine: Engine, sequence: Sequence, token: int
    ) -> None:
        with pytest.raises(OptionError, match=f"token {token} is outside the vocabulary of 331"):
            engine.decode(sequence, token)

    def test_no_tokens(self, engine: Engine, sequence: Sequence) -> None:
        with pytest.raises(OptionError, match="no tokens"):
            engine.prefill(sequence, [])

    def test_truncating_to_more_than_there_is(self, sequence: Sequence) -> None:
        with pytest.raises(OptionError, match="the sequence holds 0"):
            sequence.truncate(1)

    def test_a_closed_sequence(self, engine: Engine) -> None:
        closed = engine.new_sequence()
        closed.close()
        closed.close()
        with pytest.raises(ClosedError, match="this sequence was closed"):
            engine.decode(closed, 1)

    def test_a_closed_engine(self, tmp_path: Path) -> None:
        closed = opened(write(tmp_path / "model.gguf", types="Q4_0"))
        sequence = closed.new_sequence()
        logits = closed.decode(sequence, 1)
        expected = logits.copy()
        closed.close()
        closed.close()
        np.testing.assert_array_equal(logits, expected)  # a view outlives the model
        for call in (closed.new_sequence, lambda: closed.decode(sequence, 1)):
            with pytest.raises(ClosedError, match="the model was closed"):
                call()
