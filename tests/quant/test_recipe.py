"""Recipes give each tensor its type."""

import dataclasses

import gguf
import pytest

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.recipe import TYPES, recipe_named

TIED = ModelConfig(
    architecture="qwen2",
    name="x",
    n_layers=1,
    hidden_size=64,
    intermediate_size=96,
    vocab_size=128,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    max_context=1024,
    tie_word_embeddings=True,
)
UNTIED = dataclasses.replace(TIED, tie_word_embeddings=False)


def types(name: str, config: ModelConfig) -> dict[str, GgmlType]:
    recipe = recipe_named(name)
    return {
        tensor: recipe.type_of(tensor, shape, config)
        for tensor, shape in config.expected_tensors().items()
    }


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("config", [TIED, UNTIED])
def test_norms_and_biases_are_f32(name: str, config: ModelConfig) -> None:
    for tensor, type in types(name, config).items():
        if "norm" in tensor or tensor.endswith("bias"):
            assert type is GgmlType.F32


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "q8_0"])
def test_one_type_for_all_matrices(name: str) -> None:
    for config in (TIED, UNTIED):
        for tensor, shape in config.expected_tensors().items():
            if len(shape) == 2:
                assert types(name, config)[tensor].name.lower() == name


def test_q4_0_makes_logits_with_8_bits() -> None:
    tied, untied = types("q4_0", TIED), types("q4_0", UNTIED)
    assert tied["token_embd.weight"] is GgmlType.Q8_0
    assert untied["token_embd.weight"] is GgmlType.Q4_0
    assert untied["output.weight"] is GgmlType.Q8_0
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        assert tied[f"blk.0.{part}.weight"] is untied[f"blk.0.{part}.weight"] is GgmlType.Q4_0


@pytest.mark.parametrize("name", ["q8_0", "q4_0"])
def test_rows_that_fill_no_blocks_are_f16(name: str) -> None:
    config = dataclasses.replace(TIED, intermediate_size=100)
    found = types(name, config)
    assert found["blk.0.ffn_down.weight"] is GgmlType.F16
    assert found["blk.0.ffn_up.weight"].name.lower() == name
    assert types("bf16", config)["blk.0.ffn_down.weight"] is GgmlType.BF16


@pytest.mark.parametrize("name", TYPES)
def test_file_types_are_those_of_the_gguf_package(name: str) -> None:
    prefix = "ALL" if name == "f32" else "MOSTLY"
    assert recipe_named(name).file_type == gguf.LlamaFileType[f"{prefix}_{name.upper()}"]


def test_names() -> None:
    assert recipe_named("Q4_0") is recipe_named("q4_0")
    with pytest.raises(OptionError) as error:
        recipe_named("q3_x")
    assert str(error.value) == (
        "'q3_x' is no type to quantize to; choose one of f32, f16, bf16, q8_0, q4_0"
    )
