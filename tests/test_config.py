"""ModelConfig from GGUF metadata and from both generations of config.json."""

import dataclasses
import math
from typing import Any

import pytest

from edgeqwen.config import ModelConfig, RopeScaling
from tests.config_samples import FAMILY, YARN, from_gguf, from_hf, hf_config, new_hf_config

SCALING = "qwen2.rope.scaling."


@pytest.mark.parametrize("size", FAMILY)
def test_family_from_hf(size: str) -> None:
    config = from_hf(hf_config(size))
    found = (
        config.n_layers,
        config.hidden_size,
        config.n_heads,
        config.n_kv_heads,
        config.head_dim,
        config.intermediate_size,
        config.vocab_size,
        config.tie_word_embeddings,
    )
    assert found == FAMILY[size]
    assert (config.rope_theta, config.rms_norm_eps, config.max_context) == (1e6, 1e-6, 32768)
    assert (config.architecture, config.name, config.rope_scaling) == ("qwen2", "tiny", None)


def test_both_generations_say_the_same() -> None:
    assert from_hf(new_hf_config()) == from_hf(hf_config())
    old = from_hf(hf_config(rope_scaling=YARN))
    new = from_hf(new_hf_config(**(YARN | {"rope_type": "yarn"})))
    assert new == old
    assert old.rope_scaling == RopeScaling("yarn", 4.0, 32768)


def test_rope_scaling_added_by_hand_to_a_new_config() -> None:
    config = from_hf(new_hf_config() | {"rope_scaling": YARN})
    assert config.rope_scaling == RopeScaling("yarn", 4.0, 32768)
    assert config.rope_theta == 1e6


def test_math_and_base_variants() -> None:
    config = from_hf(hf_config("7B", rope_theta=10000, max_position_embeddings=4096))
    assert (config.rope_theta, config.max_context) == (10000.0, 4096)
    assert from_hf(hf_config("7B", rms_norm_eps=1e-5)).rms_norm_eps == 1e-5


def test_yarn_extends_the_context() -> None:
    assert from_hf(hf_config(rope_scaling=YARN)).max_context == 131072
    extended = hf_config(rope_scaling=YARN, max_position_embeddings=131072)
    assert from_hf(extended).max_context == 131072
    linear = hf_config(rope_scaling={"type": "linear", "factor": 2.0})
    assert from_hf(linear).max_context == 32768


def test_attention_factor() -> None:
    assert RopeScaling("yarn", 4.0, 32768).attention_factor == 0.1 * math.log(4.0) + 1.0
    assert RopeScaling("linear", 4.0, 32768).attention_factor == 1.0
    assert RopeScaling("yarn", 4.0, 32768, attn_factor=1.25).attention_factor == 1.25
    scaling = from_hf(hf_config(rope_scaling=YARN | {"attention_factor": 1.25})).rope_scaling
    assert scaling is not None
    assert scaling.attention_factor == 1.25


def test_hf_defaults() -> None:
    absent = ("num_key_value_heads", "rms_norm_eps", "rope_theta", "tie_word_embeddings")
    config = from_hf(hf_config(**dict.fromkeys((*absent, "max_position_embeddings"))))
    assert config.n_kv_heads == config.n_heads
    assert (config.rms_norm_eps, config.rope_theta) == (1e-6, 10000.0)
    assert (config.tie_word_embeddings, config.max_context) == (False, 32768)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e5}},
        {"tie_word_embeddings": True, "rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
    ],
)
def test_what_transformers_writes(options: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs = transformers.Qwen2Config(
        hidden_size=64, num_attention_heads=8, num_key_value_heads=2, vocab_size=320, **options
    )
    ours = from_hf(theirs.to_dict() | {"architectures": ["Qwen2ForCausalLM"]})
    assert ours.n_kv_heads == 2
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    rope = theirs.to_dict()["rope_parameters"]
    assert ours.rope_theta == rope["rope_theta"]
    assert (ours.rope_scaling is not None) == (rope["rope_type"] == "yarn")


def test_from_gguf() -> None:
    config = from_gguf()
    assert config == ModelConfig(
        architecture="qwen2",
        name="tiny",
        n_layers=2,
        hidden_size=64,
        intermediate_size=96,
        vocab_size=320,
        n_heads=4,
        n_kv_heads=2,
        head_dim=16,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        max_context=256,
        tie_word_embeddings=True,
        rope_scaling=None,
    )
    assert from_gguf(tied=False) == dataclasses.replace(config, tie_word_embeddings=False)


def test_gguf_defaults() -> None:
    absent = ("general.name", "qwen2.attention.head_count_kv", "qwen2.rope.freq_base")
    config = from_gguf(dict.fromkeys((*absent, "tokenizer.ggml.tokens")), vocab_size=77)
    assert (config.name, config.n_kv_heads) == ("tiny", 4)
    assert (config.rope_theta, config.vocab_size) == (10000.0, 77)
    assert from_gguf({"qwen2.vocab_size": 320}).vocab_size == 320


def test_name_is_safe_for_a_terminal() -> None:
    assert from_gguf({"general.name": "a\x1b]0;b\x07" + "c" * 999}).name == (
        "a\ufffd]0;b\ufffd" + "c" * 193
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"type": "none"}, None),
        ({"factor": 0.0}, None),
        ({"type": "yarn", "factor": 4.0}, RopeScaling("yarn", 4.0, 256)),
        ({"type": "linear", "factor": 2.0}, RopeScaling("linear", 2.0, 256)),
        ({"factor": 2.0}, RopeScaling("linear", 2.0, 256)),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 64, "yarn_ext_factor": 1.0},
            RopeScaling("yarn", 4.0, 64),
        ),
        (
            {"type": "yarn", "factor": 4.0, "attn_factor": 2.0},
            RopeScaling("yarn", 4.0, 256, 2.0 * (0.1 * math.log(4.0) + 1.0)),
        ),
        (
            {"type": "yarn", "factor": 4.0, "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0},
            RopeScaling("yarn", 4.0, 256, None, 16.0, 2.0),
        ),
    ],
)
def test_gguf_scaling(changes: dict[str, Any], expected: RopeScaling | None) -> None:
    assert from_gguf({SCALING + key: v for key, v in changes.items()}).rope_scaling == expected


def test_oldest_key_of_linear_scaling() -> None:
    config = from_gguf({"qwen2.rope.scale_linear": 2.0})
    assert config.rope_scaling == RopeScaling("linear", 2.0, 256)


def test_a_window_as_long_as_the_context_is_none() -> None:
    assert from_gguf({"qwen2.attention.sliding_window": 256}).max_context == 256


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_dim": 128},
        {"rope_scaling": YARN},
        {"rope_scaling": YARN | {"attention_factor": 1.5, "beta_fast": 16.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0, "attention_factor": 1.5}},
        {"num_key_value_heads": 14, "rope_theta": 10000.0, "rms_norm_eps": 1e-5},
    ],
)
def test_round_trip_through_gguf(changes: dict[str, Any]) -> None:
    config = from_hf(hf_config() | changes)
    back = ModelConfig.from_gguf(config.to_gguf(), source="x.gguf", vocab_size=151936)
    assert back == config


@pytest.mark.parametrize("size", FAMILY)
def test_expected_tensors(size: str) -> None:
    layers, hidden, heads, kv_heads, head_dim, ffn, vocab, tied = FAMILY[size]
    tensors = from_hf(hf_config(size)).expected_tensors()
    assert len(tensors) == 2 + 12 * layers + (not tied)
    assert tensors["token_embd.weight"] == (vocab, hidden)
    assert tensors.get("output.weight") == (None if tied else (vocab, hidden))
    last = f"blk.{layers - 1}."
    assert tensors[last + "attn_q.weight"] == (heads * head_dim, hidden)
    assert tensors[last + "attn_k.weight"] == (kv_heads * head_dim, hidden)
    assert tensors[last + "attn_v.bias"] == (kv_heads * head_dim,)
    assert tensors[last + "attn_output.weight"] == (hidden, heads * head_dim)
    assert tensors[last + "ffn_down.weight"] == (hidden, ffn)
    assert tensors["output_norm.weight"] == (hidden,)


def test_expected_tensors_of_wide_heads() -> None:
    tensors = from_hf(hf_config(head_dim=128)).expected_tensors()
    assert tensors["blk.0.attn_q.weight"] == (14 * 128, 896)
    assert tensors["blk.0.attn_output.weight"] == (896, 14 * 128)
