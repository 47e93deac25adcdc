"""The engine's logits: against the twin, and the same however the work is divided."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.engine import Engine
from edgeqwen.kernels.attention import UNIT
from edgeqwen.model.steps import LOGITS_TOKENS, PREFILL_TOKENS
from tests.engines import F32_CACHE, open_engine, oracle, random_tokens, tensors, write_model
from tests.oracles.distributions import deviation

MIXED = {
    "token_embd": "Q8_0",
    "blk.0.attn_q": "Q4_0",
    "blk.0.attn_k": "Q4_0",
    "blk.0.attn_v": "Q8_0",
    "blk.1.attn_q": "F16",
    "blk.1.attn_k": "Q8_0",
    "blk.1.attn_v": "F16",
    "blk.1.attn_output": "BF16",
    "blk.0.ffn_gate": "Q8_0",
    "blk.0.ffn_up": "Q4_0",
    "blk.1.ffn_down": "Q4_0",
}
YARN = {
    "qwen2.rope.scaling.type": "yarn",
    "qwen2.rope.scaling.factor": 4.0,
    "qwen2.rope.scaling.original_context_length": 64,
}
# Rounding K and V to float16, on whose edges float32 and float64 part now and then.
F16_CACHE_ERROR = 2e-4
# The same with 8 bits of a number instead of 11.
CODE_ERROR = 3e-3
# Where an activation lies on the edge of two int8, engine and twin may take different ones; that
# is one part in 127 of one activation, and changes what comes after it.
INT8_ERROR = 2.5e-2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


def all_ways(engine: Engine, tokens: list[int]) -> dict[str, np.ndarray]:
    """Returns the same tokens' logits [n, vocab_size] by each way there is to get them."""
    n_prompt = len(tokens) - 5
    sequence = engine.new_sequence()
    found = {"logits": engine.logits(sequence, tokens)}
    sequence.truncate(0)
    rows = [engine.prefill(sequence, tokens[:n_prompt]).copy()]
    rows += [engine.decode(sequence, token).copy() for token in tokens[n_prompt:]]
    found["prefill and decode"] = np.array(rows)
    sequence.close()
    return found


@pytest.mark.parametrize(
    ("options", "cache_type", "error"),
    [
        pytest.param(
            {"tied": False, **F32_CACHE},
            "f32",
            1e-5,
            id="F32",
            marks=pytest.mark.thorough,  # as YaRN
        ),
        pytest.param({"metadata": YARN, **F32_CACHE}, "f32", 1e-5, id="YaRN, tied"),
        pytest.param(
            {"rope_theta": 1e4, "rms_norm_eps": 1e-5, **F32_CACHE}, "f32", 1e-5, id="math"
        ),
        pytest.param(
            {"types": "F16", "tied": False},
            "f16",
            F16_CACHE_ERROR,
            id="F16",
            marks=pytest.mark.thorough,  # of the formats of 16 bits, BF16 is run everywhere
        ),
        pytest.param({"types": "BF16"}, "f16", F16_CACHE_ERROR, id="BF16, tied"),
        pytest.param({"types": "Q4_0", "tied": False}, "f16", INT8_ERROR, id="Q4_0"),
        pytest.param({"types": "Q4_0"}, "f16", INT8_ERROR, id="Q4_0, tied"),
        pytest.param({"types": "Q8_0", "tied": False}, "f16", INT8_ERROR, id="Q8_0"),
        pytest.param({"types": "Q8_0"}, "f16", INT8_ERROR, id="Q8_0, tied"),
        pytest.param({"types": MIXED, "tied": True}, "f16", INT8_ERROR, id="mixed"),
        pytest.param({"metadata": YARN, "k_bias": 30.0}, "q8_0", CODE_ERROR, id="q8_0 cache, YaRN"),
        pytest.param({"types": "BF16"}, "bf16", CODE_ERROR, id="bf16 cache"),
    ],
)
def test_against_the_twin(
    folder: Path, options: dict[str, Any], cache_type: str, error: float
) -> None:
    """Past the borders of steps (32 and 256 tokens) and of attention's units (256 positions)."""
    path = write_model(folder / "tiny.gguf", **options)
    tokens = random_tokens(PREFILL_TOKENS + 20)
    with open_engine(path, cache_type=cache_type) as engine:
        found = all_ways(engine, tokens)
        apart = engine.biases_apart
    expected = oracle(path, cache_type=cache_type, apart=apart).logits(tokens)
    # Large biases are kept apart where the type would suffer from them.
    assert apart.any() == (cache_type in ("q8_0", "bf16"))
    assert deviation(found["logits"], expected) < error
    assert deviation(found["prefill and decode"], expected[-6:]) < error


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_quantized_models_are_nearly_exact_where_nothing_lies_on_an_edge(
    folder: Path, kind: str
) -> None:
    """One layer, so that one token's edge doesn't reach the others through their keys."""
    path = write_model(folder / "tiny.gguf", types=kind, n_layers=1, **F32_CACHE)
    tokens = random_tokens(200)
    expected = oracle(path, cache_type="f32").logits(tokens)
    with open_engine(path, cache_type="f32") as engine:
        found = engine.logits(engine.new_sequence(), tokens)
    errors = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    assert np.quantile(errors, 0.8) < 1e-5
    assert errors.max() < INT8_ERROR


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return write_model(folder / "q4_0.gguf", types=MIXED, n_kv_heads=2, n_heads=14)


@pytest.fixture(scope="module")
def engine(path: Path) -> Any:
    with open_engine(path) as opened:
        yield opened


def test_threads_change_no_bit(engine: Engine, path: Path) -> None:
    tokens = random_tokens(150)
    expected = all_ways(engine, tokens)
    for n_threads in (1, 3):
        with open_engine(path, n_threads=n_threads) as other:
            assert other.n_threads == n_threads
            for way, found in all_ways(other, tokens).items():
                np.testing.assert_array_equal(found, expected[way])


def test_the_size_of_steps_changes_no_bit(engine: Engine) -> None:
    """All logits or the last, in steps of 32 or of 256 tokens, or cut anywhere."""
    tokens = random_tokens(PREFILL_TOKENS + LOGITS_TOKENS + 3)
    with_sequence = engine.new_sequence()
    every = engine.logits(with_sequence, tokens)
    for cuts in ([], [2, 100], [7, 31, 33, 260], [PREFILL_TOKENS]):
        with_sequence.truncate(0)
        for first, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
            last = engine.prefill(with_sequence, tokens[first:end])
            np.testing.assert_array_equal(last, every[end - 1])
    with_sequence.close()


def test_one_token_at_a_time_gives_the_bits_of_many(engine: Engine) -> None:
    """Within one unit of positions, and over several, which are merged."""
    tokens = random_tokens(3 * UNIT + 3)
    many, one = engine.new_sequence(), engine.new_sequence()
    together = engine.logits(many, tokens)
    for start in (UNIT - 20, 3 * UNIT - 5):
        engine.prefill(one, tokens[one.n_tokens : start])
        for i in range(start, min(start + 30, len(tokens))):
            np.testing.assert_array_equal(engine.decode(one, tokens[i]), together[i])
    one.truncate(0)
    for i in range(70):
        np.testing.assert_array_equal(engine.decode(one, tokens[i]), together[i])
    many.close()
    one.close()


def test_a_single_token_is_a_step_of_one(engine: Engine) -> None:
    first, second = engine.new_sequence(), engine.new_sequence()
    for token in random_tokens(3):
        expected = engine.decode(first, token).copy()
        np.testing.assert_array_equal(engine.prefill(second, [token]), expected)
    first.close()
    second.close()


def test_truncating_and_going_on_is_like_starting_again(engine: Engine) -> None:
    old, new = random_tokens(90), random_tokens(40, seed=2)
    used, fresh = engine.new_sequence(), engine.new_sequence()
    engine.prefill(used, old)
    engine.decode(used, 5)
    for kept in (70, 33, 1, 0):  # each time the cache holds what was there before
        used.truncate(kept)
        assert (used.n_tokens, used.tokens) == (kept, old[:kept])
        found = engine.prefill(used, new).copy()
        fresh.truncate(0)
        if kept:
            engine.prefill(fresh, old[:kept])
        np.testing.assert_array_equal(engine.prefill(fresh, new), found)
        following = engine.decode(used, 7).copy()
        np.testing.assert_array_equal(engine.decode(fresh, 7), following)
        used.truncate(kept)
    used.close()
    fresh.close()


def test_sequences_do_not_disturb_each_other(engine: Engine) -> None:
    prompts = [random_tokens(70, seed=3), random_tokens(50, seed=4)]
    alone = []
    for prompt in prompts:
        sequence = engine.new_sequence()
        rows = [engine.prefill(sequence, prompt[:30]).copy()]
        rows += [engine.decode(sequence, token).copy() for token in prompt[30:]]
        alone.append(rows)
        sequence.close()
    pair = [engine.new_sequence() for _ in prompts]
    together: list[list[np.ndarray]] = [
        [engine.prefill(s, p[:30]).copy()] for s, p in zip(pair, prompts, strict=True)
    ]
    for i in range(30, 70):
        for sequence, prompt, rows in zip(pair, prompts, together, strict=True):
            if i < len(prompt):
                rows.append(engine.decode(sequence, prompt[i]).copy())
    for sequence, rows, expected in zip(pair, together, alone, strict=True):
        np.testing.assert_array_equal(rows, expected)
        sequence.close()


@pytest.mark.thorough
def test_another_instruction_set_agrees(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole network in plain vector code, as EDGEQWEN_ISA=generic asks for it."""
    path = write_model(folder / "generic.gguf", types="Q8_0", n_layers=1, n_heads=5, head_dim=32)
    tokens = random_tokens(80)
    expected = oracle(path).logits(tokens)
    monkeypatch.setenv("EDGEQWEN_ISA", "generic")
    with open_engine(path) as engine:
        assert engine.isa.name == "generic"
        found = all_ways(engine, tokens)
    assert deviation(found["logits"], expected) < INT8_ERROR
    assert deviation(found["prefill and decode"], expected[-6:]) < INT8_ERROR


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "blk.1.ffn_down.weight", "blk.0.attn_k.bias"]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_give_nan_and_no_crash(
    folder: Path, name: str, value: float
) -> None:
    tensor = tensors(**F32_CACHE)[name]
    tensor.flat[tensor.size // 2 :: 7] = value
    path = write_model(folder / "bad.gguf", tensors={name: tensor}, **F32_CACHE)
    with open_engine(path, cache_type="f32") as engine:
        sequence = engine.new_sequence()
        tokens = list(range(160, 200))
        for logits in (engine.prefill(sequence, tokens), engine.decode(sequence, 170)):
            assert np.isnan(logits).all()
        sequence.close()
