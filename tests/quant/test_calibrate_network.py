"""The parts of the network that calibration computes in numpy, against the twin of the whole."""

from typing import Any

import numpy as np
import pytest

from edgeqwen.config import ModelConfig
from edgeqwen.quant.calibrate.network import Attention, rms_norm, swiglu
from tests.gguf_samples import tiny_metadata, tiny_tensors
from tests.oracles.qwen2 import Qwen2

YARN = {
    "qwen2.rope.scaling.type": "yarn",
    "qwen2.rope.scaling.factor": 4.0,
    "qwen2.rope.scaling.original_context_length": 64,
}
LINEAR = {"qwen2.rope.scaling.type": "linear", "qwen2.rope.scaling.factor": 2.0}


def recorded(changes: dict[str, Any], **sizes: Any) -> tuple[ModelConfig, dict[str, Any]]:
    """Returns what every step of the twin gives for some tokens, and the weights."""
    metadata = {**tiny_metadata(n_layers=1, **sizes), **changes}
    weights = tiny_tensors(metadata)
    config = ModelConfig.from_gguf(metadata, source="tiny")
    record: dict[str, np.ndarray] = {}
    Qwen2(config, weights).logits(np.random.default_rng(0).integers(0, 256, 90), record)
    return config, {**weights, **record}


@pytest.mark.parametrize("changes", [{}, YARN, LINEAR], ids=["plain", "yarn", "linear"])
@pytest.mark.parametrize("sizes", [{}, {"n_kv_heads": 4}, {"n_kv_heads": 1, "head_dim": 32}])
def test_attention(changes: dict[str, Any], sizes: dict[str, int]) -> None:
    config, found = recorded(changes, **sizes)
    assert (config.rope_scaling is None) == (not changes)
    qkv = np.concatenate([found[f"blk.0.attn_{which}"] for which in "qkv"], axis=1)
    attention = Attention(config, 128)
    given = qkv.astype(np.float32)
    mixed = attention(given)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, found["blk.0.attention"], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(given, qkv.astype(np.float32))


def test_norm() -> None:
    config, found = recorded({}, rms_norm_eps=1e-2)
    x = found["token_embd.weight"][np.random.default_rng(0).integers(0, 256, 90)]
    normed = rms_norm(x, found["blk.0.attn_norm.weight"], config.rms_norm_eps)
    assert normed.dtype == np.float32
    np.testing.assert_allclose(normed, found["blk.0.attn_norm"], rtol=1e-5, atol=1e-6)


def test_swiglu() -> None:
    _, found = recorded({})
    gate, up = (found[f"blk.0.ffn_{which}"].astype(np.float32) for which in ("gate", "up"))
    np.testing.assert_allclose(swiglu(gate, up), found["blk.0.swiglu"], rtol=1e-4, atol=1e-6)


def test_swiglu_of_large_gates() -> None:
    gates = np.array([-1e4, -100, 0, 100, 1e4], np.float32)
    np.testing.assert_allclose(swiglu(gates, np.ones_like(gates)), [0, 0, 0, 100, 1e4], atol=1e-30)
