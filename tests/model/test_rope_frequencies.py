"""Rotary frequencies against the oracle and against transformers, plain and scaled."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from edgeqwen.config import ModelConfig
from edgeqwen.model.rope_frequencies import rope_frequencies
from edgeqwen.rope_scaling import RopeScaling
from tests.config_samples import from_gguf, hf_config
from tests.oracles import qwen2

YARN = RopeScaling("yarn", 4.0, 32768)
SCALINGS = {
    "none": None,
    "linear": RopeScaling("linear", 8.0, 4096),
    "linear, factor 1": RopeScaling("linear", 1.0, 4096),
    "yarn": YARN,
    "yarn, other factor": dataclasses.replace(YARN, factor=1.5),
    "yarn, attention factor": dataclasses.replace(YARN, attn_factor=1.3),
    "yarn, betas": dataclasses.replace(YARN, beta_fast=8.0, beta_slow=2.0),
    "yarn, equal betas": dataclasses.replace(YARN, beta_fast=4.0, beta_slow=4.0),
    "yarn, short context": dataclasses.replace(YARN, original_max_context=128),
    "yarn, one token": dataclasses.replace(YARN, original_max_context=1),
}
each_scaling = pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
each_model = pytest.mark.parametrize(
    ("theta", "head_dim"), [(1e6, 64), (1e6, 128), (1e4, 128), (1e7, 32)]
)


def config(theta: float, head_dim: int, scaling: RopeScaling | None) -> ModelConfig:
    return dataclasses.replace(
        from_gguf(), rope_theta=theta, head_dim=head_dim, rope_scaling=scaling
    )


@each_scaling
@each_model
def test_as_the_oracle_has_them(theta: float, head_dim: int, scaling: RopeScaling | None) -> None:
    found, factor = rope_frequencies(config(theta, head_dim, scaling))
    exact, exact_factor = qwen2.rope_frequencies(config(theta, head_dim, scaling))
    assert found.dtype == np.float32
    assert found.shape == (head_dim // 2,)
    # theta ** x in float32, as the models were trained, is good to about two roundings.
    np.testing.assert_allclose(found, exact, rtol=5e-7)
    assert factor == pytest.approx(exact_factor, rel=1e-12)


def test_known_frequencies() -> None:
    found, factor = rope_frequencies(config(1e4, 64, None))
    assert (found[0], factor) == (1.0, 1.0)
    np.testing.assert_allclose(found[[8, 16, 24]], [1e-1, 1e-2, 1e-3], rtol=1e-6)


def test_a_scaling_of_one_changes_nothing() -> None:
    plain, _ = rope_frequencies(config(1e6, 128, None))
    for kind in ("linear", "yarn"):
        scaled, factor = rope_frequencies(config(1e6, 128, RopeScaling(kind, 1.0, 32768)))
        np.testing.assert_allclose(scaled, plain, rtol=2e-7)
        assert factor == 1.0


def test_yarn_keeps_the_fast_and_divides_the_slow() -> None:
    plain, _ = rope_frequencies(config(1e6, 128, None))
    scaled, _ = rope_frequencies(config(1e6, 128, YARN))
    ratio = plain / scaled
    assert ratio[0] == 1
    np.testing.assert_allclose(ratio[-1], 4, rtol=1e-6)
    assert (np.diff(ratio) >= -1e-5).all()


@pytest.mark.parametrize("theta", [1.0, 1 + 1e-12, 0.5])
def test_strange_bases_give_numbers(theta: float) -> None:
    found, factor = rope_frequencies(config(theta, 64, YARN))
    assert np.isfinite(found).all()
    assert np.isfinite(factor)


HF_SCALINGS = {
    "plain": {},
    "linear": {"rope_type": "linear", "factor": 8.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    "yarn, attention factor": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
        "attention_factor": 1.25,
    },
    "yarn, betas": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 8192,
        "beta_fast": 16,
        "beta_slow": 2,
    },
    "yarn of one token": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 1,
    },
}


@pytest.mark.peers
@pytest.mark.parametrize("rope", HF_SCALINGS.values(), ids=HF_SCALINGS)
def test_as_transformers_has_them(rope: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    pytest.importorskip("torch", reason="transformers computes them with torch")
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    parameters = {"rope_type": "default", "rope_theta": 1e6, **rope}
    values = hf_config("7B", rope_theta=None, torch_dtype=None)
    values["rope_parameters"] = parameters
    theirs = Qwen2RotaryEmbedding(transformers.Qwen2Config(**values))
    found, factor = rope_frequencies(ModelConfig.from_hf(values, source="a test"))
    np.testing.assert_allclose(found, theirs.inv_freq.numpy(), rtol=5e-7)
    assert factor == pytest.approx(theirs.attention_scaling, rel=1e-12)
