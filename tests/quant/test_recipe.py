"""Recipes give each tensor its type: the one that llama.cpp's quantizer gives it."""

import dataclasses
import re

import gguf
import pytest

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant import TENSOR_TYPES, TYPES
from edgeqwen.quant.recipe import fitting, recipe_named
from tests.quant.recipe_cases import MODELS, RECIPES, config, our_types, read_table, summary

TIED, UNTIED = config(), config(tied=False)


def numbers_of(part: str, type: str, found: dict[str, str]) -> list[int]:
    """Returns the layers whose matrix of this name is of this type."""
    return [int(t.split(".")[1]) for t, k in found.items() if f".{part}.weight" in t and k == type]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", MODELS)
def test_types_are_those_of_llama_quantize(model: str, recipe: str) -> None:
    assert summary(our_types(recipe, MODELS[model])) == read_table()[model, recipe]


def test_the_table_is_whole() -> None:
    assert set(read_table()) == {(model, recipe) for model in MODELS for recipe in RECIPES}


def test_a_summary_tells_where_types_are() -> None:
    types = our_types("q4_k_m", MODELS["1.5B"])
    swapped = {**types, "blk.3.attn_v.weight": "Q6_K", "blk.5.attn_v.weight": "Q4_K"}
    assert (types["blk.3.attn_v.weight"], types["blk.5.attn_v.weight"]) == ("Q4_K", "Q6_K")
    assert summary(types) != summary(swapped)
    assert summary(types).split()[:-1] == summary(swapped).split()[:-1]


def test_q4_k_m() -> None:
    # What published 0.5B files of this name hold.
    assert summary(our_types("q4_k_m", MODELS["0.5B"])).startswith(
        "121xF32 12xQ4_K 132xQ5_0 12xQ6_K 13xQ8_0 "
    )
    types = our_types("q4_k_m", MODELS["7B"])
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == types["blk.0.ffn_up.weight"] == "Q4_K"
    more = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]
    assert numbers_of("attn_v", "Q6_K", types) == numbers_of("ffn_down", "Q6_K", types) == more


def test_80_layers() -> None:
    for recipe in ("q4_k_m", "q4_k_s", "q3_k_s", "q2_k"):
        assert not numbers_of("attn_v", "Q4_K", our_types(recipe, MODELS["72B"]))
    fewer = dataclasses.replace(MODELS["72B"], n_layers=79)
    assert len(numbers_of("attn_v", "Q4_K", our_types("q4_k_s", fewer))) == 75


@pytest.mark.parametrize(("heads", "type"), [((12, 3), "Q5_K"), ((9, 3), "IQ4_XS")])
def test_shared_keys_and_values_get_more_bits(heads: tuple[int, int], type: str) -> None:
    model = config(hidden_size=2304, intermediate_size=256, heads=heads)
    assert our_types("iq4_xs", model)["blk.0.attn_v.weight"] == type


def test_importance_changes_the_first_layers() -> None:
    model = config(n_layers=16, hidden_size=256, intermediate_size=256)
    for recipe, without, known in (
        ("iq4_xs", "Q5_K", "IQ4_XS"),
        ("iq4_nl", "Q5_K", "IQ4_NL"),
        ("q4_0", "Q4_0", "Q4_1"),
        ("q5_0", "Q5_0", "Q5_1"),
    ):
        for name, type in ((recipe, without), (f"{recipe}+imatrix", known)):
            types = our_types(name, model)
            assert types["blk.0.ffn_down.weight"] == types["blk.1.ffn_down.weight"] == type
            assert types["blk.2.ffn_down.weight"] == recipe.upper()


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("model", [TIED, UNTIED])
def test_norms_and_biases_are_f32(name: str, model: ModelConfig) -> None:
    for tensor, type in our_types(name, model).items():
        if "norm" in tensor or tensor.endswith("bias"):
            assert type == "F32"


@pytest.mark.parametrize("name", ["f32", "f16", "bf16", "q8_0"])
def test_one_type_for_all_matrices(name: str) -> None:
    for model in (TIED, UNTIED):
        for tensor, shape in model.expected_tensors().items():
            if len(shape) == 2:
                assert our_types(name, model)[tensor].lower() == name


@pytest.mark.parametrize(("hidden_size", "logits"), [(64, "Q8_0"), (256, "Q6_K")])
def test_logits_get_more_bits(hidden_size: int, logits: str) -> None:
    tied = our_types("q4_0", config(hidden_size=hidden_size))
    untied = our_types("q4_0", config(hidden_size=hidden_size, tied=False))
    assert tied["token_embd.weight"] == untied["output.weight"] == logits
    assert untied["token_embd.weight"] == "Q4_0"
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        assert tied[f"blk.0.{part}.weight"] == untied[f"blk.0.{part}.weight"] == "Q4_0"


@pytest.mark.parametrize(
    ("type", "of_32"),
    [
        ("Q2_K", "Q4_0"),
        ("Q3_K", "Q4_0"),
        ("Q4_K", "Q5_0"),
        ("Q5_K", "Q5_1"),
        ("Q6_K", "Q8_0"),
        ("IQ4_XS", "IQ4_NL"),
        ("Q4_0", "Q4_0"),
        ("Q8_0", "Q8_0"),
    ],
)
def test_fallbacks(type: str, of_32: str) -> None:
    assert fitting(GgmlType[type], 512).name == type
    assert fitting(GgmlType[type], 320).name == of_32
    assert fitting(GgmlType[type], 100) is GgmlType.F16


@pytest.mark.parametrize("name", TYPES)
def test_rows_that_fill_no_blocks_are_f16(name: str) -> None:
    model = config(hidden_size=256, intermediate_size=100)
    found = our_types(name, model)
    expected = name.upper() if name in ("f32", "f16", "bf16") else "F16"
    assert found["blk.0.ffn_down.weight"] == expected
    base = re.sub("_[sml]$", "", name)
    assert found["blk.0.ffn_up.weight"].lower() == base


@pytest.mark.parametrize("name", TYPES)
def test_file_types_are_those_of_the_gguf_package(name: str) -> None:
    prefix = "ALL" if name == "f32" else "MOSTLY"
    assert recipe_named(name).file_type == gguf.LlamaFileType[f"{prefix}_{name.upper()}"]


def test_types_of_tensors() -> None:
    assert all(type.name.lower() == name for name, type in TENSOR_TYPES.items())
    used = {
        type for model in MODELS.values() for r in RECIPES for type in our_types(r, model).values()
    }
    assert {type.name for type in TENSOR_TYPES.values()} == used


def test_names() -> None:
    assert recipe_named("Q4_0") is recipe_named("q4_0")
    for short in ("q3_k", "Q4_K", "q5_k"):
        assert recipe_named(short) is recipe_named(f"{short}_m")
    with pytest.raises(OptionError) as error:
        recipe_named("q3_x")
    assert str(error.value) == (
        "'q3_x' is no type to quantize to; choose one of f32, f16, bf16, q8_0, q6_k, q5_k_m, "
        "q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, iq4_nl, iq4_xs, q3_k_l, q3_k_m, q3_k_s, "
        "q2_k"
    )
