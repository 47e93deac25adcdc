"""Which biases of keys are kept apart of the cache, and the rotations for them."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.kernels.cache_types import CACHE_TYPES
from edgeqwen.kernels.key_biases import HEADER, ROTATION_BYTES
from edgeqwen.model.key_biases import KeyBiases
from edgeqwen.model.rope_frequencies import rope_frequencies
from tests.engines import open_engine, tensors, write_model
from tests.oracles import kernels as twins

HEADS = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 64}
YARN = {
    "qwen2.rope.scaling.type": "yarn",
    "qwen2.rope.scaling.factor": 4.0,
    "qwen2.rope.scaling.original_context_length": 64,
}


def spread(weights: dict[str, np.ndarray], layer: int, head: int) -> float:
    """Returns the standard deviation of W x in one KV head, for independent x of deviation 1."""
    rows = weights[f"blk.{layer}.attn_k.weight"][64 * head : 64 * (head + 1)]
    scaled = rows * weights[f"blk.{layer}.attn_norm.weight"]
    return float(np.sqrt(np.square(scaled).sum(1).mean()))


@pytest.mark.parametrize("cache_type", ["bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize(
    "types", ["F32", {"blk.0.attn_k": "Q8_0", "blk.0.attn_q": "Q4_0"}], ids=str
)
def test_large_biases_are_kept_apart(tmp_path: Path, cache_type: str, types: object) -> None:
    """By pairs of dimensions, wherever K stands among q, k and v; of other layers, none."""
    weights = tensors(**HEADS, k_bias=0.5)
    factor = CACHE_TYPES[cache_type].bias_factor
    assert factor is not None
    biases = np.zeros((2, 64), np.float32)
    limits = [factor * spread(weights, 0, head) for head in range(2)]
    biases[0, 5] = 1.3 * limits[0]  # a pair of 5 and 37
    biases[0, [7, 39]] = [0.8 * limits[0], -0.9 * limits[0]]  # together, they are larger
    biases[1, 63] = -1.3 * limits[1]
    biases[1, 30] = 0.6 * limits[1]  # too small
    changed = {"blk.0.attn_k.bias": biases.reshape(-1)}
    path = write_model(tmp_path / "m.gguf", **HEADS, k_bias=0.01, tensors=changed, types=types)
    with open_engine(path, cache_type=cache_type) as engine:
        assert not engine.biases_apart.any()
        engine.prefill(engine.new_sequence(), [1])
        found = engine.biases_apart
    biases[1, 30] = 0
    np.testing.assert_array_equal(found[0], biases)
    assert not found[1].any()


@pytest.mark.thorough
@pytest.mark.parametrize("cache_type", ["f16", "f32"])
def test_types_that_do_not_suffer_keep_none_apart(tmp_path: Path, cache_type: str) -> None:
    path = write_model(tmp_path / "m.gguf", **HEADS, k_bias=500.0)
    with open_engine(path, cache_type=cache_type) as engine:
        engine.prefill(engine.new_sequence(), [1])
        assert not engine.biases_apart.any()


@pytest.mark.parametrize(("cache_type", "n_more"), [("f16", 0), ("q8_0", 1)])
def test_what_choosing_compiles_is_known_ahead(
    tmp_path: Path, cache_type: str, n_more: int
) -> None:
    """Rows of K are read in their own format, which the embedding need not have."""
    types = {"token_embd": "Q8_0", "blk.0.attn_k": "Q4_0", "blk.1.attn_k": "Q4_0"}
    path = write_model(tmp_path / "m.gguf", **HEADS, types=types)
    with open_engine(path, cache_type=cache_type, pack=False) as engine:
        found = [token for kernel, token in engine.kernels() if kernel == "embed"]
        assert len(found) == 1 + n_more
        assert any("Q4_0" in token for token in found) == bool(n_more)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_biases_that_are_no_numbers_stay_in_the_keys(tmp_path: Path, bad: float) -> None:
    """And what comes of them is no number either."""
    biases = np.full(128, 1000, np.float32)
    biases[3] = bad
    changed = {"blk.0.attn_k.bias": biases}
    path = write_model(tmp_path / "m.gguf", **HEADS, tensors=changed)
    with open_engine(path, cache_type="q8_0") as engine:
        logits = engine.prefill(engine.new_sequence(), [1])
        found = engine.biases_apart[0].reshape(-1)
        assert not np.isfinite(logits).any()
    assert (found[3], found[3 + 32]) == (0, 0)
    assert (found != 0).sum() == 126


def test_rotations_are_those_of_the_keys(tmp_path: Path) -> None:
    """Of all positions so far, with YaRN's factor; only of pairs that some head needs."""
    biases = np.zeros((2, 64), np.float32)
    biases[0, [4, 9]], biases[1, [9, 50]] = 900, 900
    changed = {"blk.0.attn_k.bias": biases.reshape(-1)}
    path = write_model(tmp_path / "m.gguf", **HEADS, k_bias=0.01, tensors=changed, metadata=YARN)
    with open_engine(path, cache_type="q8_0") as engine:
        engine.prefill(engine.new_sequence(), [1] * 300)
        apart = engine._recorder.key_biases
        frequencies, factor = rope_frequencies(engine.config)
        table = np.frombuffer(ctypes.string_at(apart.rotations(1), 16), np.int64)
        pairs = np.frombuffer(ctypes.string_at(apart.pairs(0), 2 * 4 * 66), np.int32)
        expected = twins.angles(np.arange(512), frequencies, factor).astype(np.float32)
        expected = expected.reshape(2, 8, 32, 2, 32)  # [segment][tile][position][cos, sin][pair]
        for head, chosen in enumerate([(4, 9), (9, 18)]):
            of_head = pairs.reshape(2, -1)[head]
            assert of_head[:HEADER].tolist() == [2, 3 * ROTATION_BYTES]
            for (place, i), wanted in zip(of_head[HEADER:].reshape(-1, 2), chosen, strict=False):
                assert i == wanted
                for segment, tile in np.ndindex(2, 8):
                    start = int(table[segment]) + tile * 3 * ROTATION_BYTES + int(place)
                    turned = np.frombuffer(ctypes.string_at(start, ROTATION_BYTES), np.float32)
                    wide = expected[segment, tile, :, :, i].T
                    np.testing.assert_allclose(turned.reshape(2, 32), wide, rtol=0, atol=2.5e-7)


@pytest.mark.parametrize("broken", ["_rotations_of", "_spread"])
def test_what_is_broken_off_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Ctrl-C while biases are chosen, or rotations made: tables are never shorter than told."""
    path = write_model(tmp_path / "m.gguf", **HEADS, k_bias=300.0)
    tokens = list(range(3, 203)) * 4
    with open_engine(path, cache_type="q8_0") as engine:
        expected = engine.prefill(engine.new_sequence(), tokens).copy()
    original = getattr(KeyBiases, broken)
    for n in (1, 2, 3):
        left = n

        def fail(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            result = original(*arguments)
            if left == 0:
                raise KeyboardInterrupt
            return result

        with open_engine(path, cache_type="q8_0") as engine:
            with monkeypatch.context() as patch:
                patch.setattr(KeyBiases, broken, fail)
                if broken == "_spread" and n > engine.config.n_layers:
                    break
                with pytest.raises(KeyboardInterrupt):
                    engine.prefill(engine.new_sequence(), tokens)
            found = engine.prefill(engine.new_sequence(), tokens)
            np.testing.assert_array_equal(found, expected)
