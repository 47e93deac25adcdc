"""The configurations that are refused, and what is said about them."""

import math
from typing import Any

import pytest

from edgeqwen.errors import FileFormatError, UnsupportedError
from tests.config_samples import YARN, from_gguf, from_hf, hf_config

SCALING = "qwen2.rope.scaling."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing; the model can't be run without it"),
        ({"hidden_size": 0}, "hidden_size is 0, expected a whole number from 1 to 131072"),
        ({"hidden_size": -64}, "hidden_size is -64, expected"),
        ({"hidden_size": 896.5}, "hidden_size is 896.5, expected"),
        ({"hidden_size": "896"}, "hidden_size is '896', expected"),
        ({"hidden_size": True}, "hidden_size is True, expected"),
        ({"hidden_size": [896]}, "hidden_size is a list of 1, expected"),
        ({"hidden_size": {896}}, "hidden_size is a set, expected"),
        ({"hidden_size": 10**5000}, "hidden_size is an integer of 16610 bits, expected"),
        ({"hidden_size": 900}, "hidden size of 900 can't be shared out among 14 heads, and head"),
        ({"hidden_size": 14}, "the heads are 1 long, expected an even number up to 1024"),
        ({"hidden_size": 126}, "the heads are 9 long, expected an even number"),
        ({"hidden_size": 28000}, "the heads are 2000 long, expected an even number up to 1024"),
        ({"head_dim": 63}, "the heads are 63 long, expected an even number"),
        ({"head_dim": 2048}, "head_dim is 2048, expected a whole number from 2 to 1024"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, expected"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, expected"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4, expected a divisor of the 14"),
        ({"num_key_value_heads": 15}, "num_key_value_heads is 15, expected a whole number from 1"),
        ({"intermediate_size": 1 << 40}, "intermediate_size is 1099511627776, expected"),
        ({"vocab_size": 1 << 30}, "vocab_size is 1073741824, expected"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0, expected"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0, expected a number from 1e-20 to 0.1"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps is nan, expected"),
        ({"rope_theta": math.inf}, "rope_theta is inf, expected a number from 1 to 1e+12"),
        ({"rope_theta": math.nan}, "rope_theta is nan, expected"),
        ({"rope_theta": "x" * 99}, "rope_theta is '" + "x" * 57 + "...', expected"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, expected true or false"),
        ({"model_type": None}, "model_type is missing"),
        ({"model_type": 3}, "model_type is 3, expected a string"),
        ({"layer_types": {}}, "layer_types is an object, expected a list"),
        ({"rope_scaling": [4]}, "rope_scaling is a list of 1, expected an object"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": YARN | {"factor": 0.5}}, "rope_scaling.factor is 0.5, expected a number"),
        (
            {"rope_scaling": YARN | {"original_max_position_embeddings": 0}},
            "rope_scaling.original_max_position_embeddings is 0, expected",
        ),
        ({"rope_scaling": YARN | {"beta_fast": math.nan}}, "rope_scaling.beta_fast is nan"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_parameters.rope_theta is -1, expected"),
    ],
)
def test_hf_values_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FileFormatError) as error:
        from_hf(hf_config() | changes)
    assert str(error.value).startswith("models/tiny/config.json: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; only 'qwen2' can be converted"),
        (
            {"architectures": ["Qwen2ForSequenceClassification"]},
            "is 'Qwen2ForSequenceClassification'; only 'Qwen2ForCausalLM' can be converted",
        ),
        ({"architectures": []}, "architectures is a list of 0; only 'Qwen2ForCausalLM'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' can be run"),
        ({"use_sliding_window": True}, "use_sliding_window is True; a sliding window can't be run"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types holds 'sliding_attention'; only 'full_attention' can be run",
        ),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "quantized already ('gptq'); convert the original one, in bf16, f16 or f32",
        ),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope_scaling.rope_type is 'dynamic'; this version knows the RoPE scaling types "
            "'linear' and 'yarn'",
        ),
        (
            {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}},
            "rope_scaling.type is 'mrope'; this version knows",
        ),
        (
            {"rope_scaling": YARN | {"mscale_all_dim": 1.0}},
            "rope_scaling.mscale_all_dim is 1.0, a RoPE option that this version can't run",
        ),
        ({"rope_scaling": YARN | {"truncate": False}}, "rope_scaling.truncate is False, a RoPE"),
        (
            {"rope_scaling": {"partial_rotary_factor": 0.5}},
            "rope_scaling.partial_rotary_factor is 0.5, a RoPE option",
        ),
        ({"rope_scaling": {"\x1b[2J": 1}}, "rope_scaling.\ufffd[2J is 1, a RoPE option"),
    ],
)
def test_hf_options_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        from_hf(hf_config() | changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("general.architecture", None, "general.architecture is missing"),
        ("qwen2.block_count", None, "qwen2.block_count is missing; the model can't be run"),
        ("qwen2.block_count", 0, "qwen2.block_count is 0, expected a whole number from 1 to 1024"),
        ("qwen2.block_count", 1 << 31, "qwen2.block_count is 2147483648, expected"),
        ("qwen2.context_length", 0, "qwen2.context_length is 0, expected"),
        ("qwen2.context_length", None, "qwen2.context_length is missing"),
        ("qwen2.embedding_length", -1, "qwen2.embedding_length is -1, expected"),
        ("qwen2.feed_forward_length", 1.5, "qwen2.feed_forward_length is 1.5, expected"),
        ("qwen2.attention.head_count", [4, 4], "qwen2.attention.head_count is a list of 2"),
        ("qwen2.attention.head_count_kv", 3, "is 3, expected a divisor of the 4 heads"),
        ("qwen2.attention.key_length", 15, "the heads are 15 long, expected an even number"),
        ("qwen2.attention.layer_norm_rms_epsilon", None, "layer_norm_rms_epsilon is missing"),
        ("qwen2.attention.layer_norm_rms_epsilon", math.nan, "layer_norm_rms_epsilon is nan"),
        ("qwen2.rope.freq_base", math.inf, "qwen2.rope.freq_base is inf, expected"),
        ("qwen2.vocab_size", 321, "is 321, expected 320, the length of tokenizer.ggml.tokens"),
        ("tokenizer.ggml.tokens", [], "the vocabulary has 0 tokens, expected 1 to 4194304"),
        ("tokenizer.ggml.tokens", "abc", "tokenizer.ggml.tokens is 'abc', expected a list"),
        ("tokenizer.ggml.tokens", None, "qwen2.vocab_size is missing"),
        (SCALING + "type", 1, "qwen2.rope.scaling.type is 1, expected a string"),
        (SCALING + "type", "yarn", "qwen2.rope.scaling.factor is missing"),
        (SCALING + "factor", math.nan, "qwen2.rope.scaling.factor is nan, expected"),
    ],
)
def test_gguf_values_that_make_no_sense(key: str, value: object, message: str) -> None:
    with pytest.raises(FileFormatError) as error:
        from_gguf({key: value})
    assert str(error.value).startswith("tiny.gguf: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "llama"}, "is 'llama'; only 'qwen2' can be run"),
        ({"qwen2.rope.dimension_count": 8}, "is 8; only the head's whole length, 16, can be"),
        ({"qwen2.attention.value_length": 8}, "is 8; only the head's whole length, 16, can be"),
        ({"qwen2.attention.sliding_window": 128}, "is 128; a sliding window can't be run"),
        ({SCALING + "type": "longrope"}, "scaling.type is 'longrope'; this version knows"),
        (
            {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "yarn_ext_factor": 0.5},
            "yarn_ext_factor is 0.5, a RoPE option that this version can't run",
        ),
    ],
)
def test_gguf_options_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        from_gguf(changes)
    assert message in str(error.value)
