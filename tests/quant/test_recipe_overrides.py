"""Overrides: types for the matrices in whose names an expression is found."""

from collections.abc import Mapping

import pytest

from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant import TENSOR_TYPES
from edgeqwen.quant.overrides import Overrides

NAMES = [
    "token_embd.weight",
    *(f"blk.{i}.{part}.weight" for i in range(12) for part in ("attn_q", "attn_v", "ffn_down")),
]


def chosen(types: Mapping[str, str]) -> dict[str, str]:
    overrides = Overrides(types)
    return {name: type.name for name in NAMES if (type := overrides.type_of(name))}


def refused(types: Mapping[str, str]) -> str:
    with pytest.raises(OptionError) as error:
        Overrides(types).check_all_used(NAMES)
    return str(error.value)


def test_an_expression_is_searched_for() -> None:
    assert chosen({r"blk\.1\.": "Q8_0"}) == {
        "blk.1.attn_q.weight": "Q8_0",
        "blk.1.attn_v.weight": "Q8_0",
        "blk.1.ffn_down.weight": "Q8_0",
    }
    assert set(chosen({"^token|ATTN_V": "f16"})) == {
        "token_embd.weight",
        *(f"blk.{i}.attn_v.weight" for i in range(12)),
    }
    assert chosen({}) == {}


def test_the_first_that_is_found_decides() -> None:
    found = chosen({r"blk\.0\..*_v": "q6_k", "attn_[qv]": "q5_k", "blk": "q4_k"})
    assert found["blk.0.attn_v.weight"] == "Q6_K"
    assert found["blk.0.attn_q.weight"] == found["blk.1.attn_v.weight"] == "Q5_K"
    assert found["blk.0.ffn_down.weight"] == "Q4_K"
    assert "token_embd.weight" not in found
    assert chosen({"blk": "q4_k", "attn_v": "q6_k"})["blk.0.attn_v.weight"] == "Q4_K"


@pytest.mark.parametrize("name", TENSOR_TYPES)
def test_names_of_types(name: str) -> None:
    assert Overrides({".": name.upper()}).type_of("x") is GgmlType[name.upper()]


def test_one_that_another_hides_is_no_mistake() -> None:
    Overrides({"blk": "q4_k", "attn_v": "q6_k"}).check_all_used(NAMES)


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (
            {"attn_(": "q8_0"},
            "tensor type 'attn_(': is no regular expression (missing ), unterminated subpattern at "
            "position 5); a part of a name such as attn_v is one",
        ),
        (
            {"attn_v": "q4_k_m"},
            "'q4_k_m' is no type that a tensor can be converted to; choose one of f32, f16, bf16, "
            "q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, iq4_nl, iq4_xs, q3_k, q2_k",
        ),
        (
            {"attn_v": "q8_0", "attn_k": "q8_0"},
            "tensor type 'attn_k': found in the name of no matrix of this model, which are "
            "token_embd.weight, blk.0.attn_q.weight, blk.0.attn_v.weight, blk.0.ffn_down.weight, "
            "blk.1.attn_q.weight, blk.1.attn_v.weight, blk.1.ffn_down.weight, blk.2.attn_q.weight "
            "and so on (norms and biases are always F32)",
        ),
    ],
)
def test_mistakes(types: dict[str, str], message: str) -> None:
    assert refused(types) == message
