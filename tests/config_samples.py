"""Configurations of the published family, as config.json holds them."""

from typing import Any

from edgeqwen.config import ModelConfig
from tests.gguf_samples import tiny_metadata

# Shapes of the published family: layers, hidden, heads, kv heads, head_dim, ffn, vocab, tied.
FAMILY = {
    "0.5B": (24, 896, 14, 2, 64, 4864, 151936, True),
    "1.5B": (28, 1536, 12, 2, 128, 8960, 151936, True),
    "3B": (36, 2048, 16, 2, 128, 11008, 151936, True),
    "7B": (28, 3584, 28, 4, 128, 18944, 152064, False),
    "14B": (48, 5120, 40, 8, 128, 13824, 152064, False),
    "32B": (64, 5120, 40, 8, 128, 27648, 152064, False),
    "72B": (80, 8192, 64, 8, 128, 29568, 152064, False),
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def hf_config(size: str = "0.5B", **changes: Any) -> dict[str, Any]:
    """Returns a config.json as the published checkpoints have it; None removes a key."""
    layers, hidden, heads, kv_heads, _, ffn, vocab, tied = FAMILY[size]
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": ffn,
        "max_position_embeddings": 32768,
        "max_window_layers": 21,
        "model_type": "qwen2",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocab,
    }
    return {k: v for k, v in (config | changes).items() if v is not None}


def new_hf_config(**rope: Any) -> dict[str, Any]:
    """Returns the config.json that transformers 5 writes for the same model."""
    config = hf_config(torch_dtype=None, rope_theta=None, sliding_window=None)
    return config | {
        "dtype": "bfloat16",
        "layer_types": ["full_attention"] * 24,
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"} | rope,
        "sliding_window": None,
    }


def from_hf(config: dict[str, Any]) -> ModelConfig:
    return ModelConfig.from_hf(config, source="models/tiny/config.json")


def from_gguf(changes: dict[str, Any] | None = None, **options: Any) -> ModelConfig:
    metadata = tiny_metadata() | (changes or {})
    return ModelConfig.from_gguf(metadata, source="tiny.gguf", **options)
