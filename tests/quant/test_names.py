"""Names go from Hugging Face to GGUF and back, and only Qwen2's do."""

import gguf
import pytest

from edgeqwen.quant.names import is_derived, to_gguf_name, to_hf_name
from tests.hf_checkpoints import tensor_shapes

HF_NAMES = list(tensor_shapes(12, 8, 8, 2, 1, 4, 8, False))


def test_as_the_gguf_package_has_it() -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 12)
    for name in HF_NAMES:
        assert to_gguf_name(name) == names.get_name(name, try_suffixes=(".weight", ".bias"))


def test_and_back() -> None:
    for name in HF_NAMES:
        found = to_gguf_name(name)
        assert found is not None
        assert to_hf_name(found) == name


def test_without_prefix() -> None:
    assert to_gguf_name("embed_tokens.weight") == "token_embd.weight"
    assert to_gguf_name("norm.weight") == "output_norm.weight"
    assert to_gguf_name("layers.3.mlp.up_proj.weight") == "blk.3.ffn_up.weight"


@pytest.mark.parametrize(
    "name",
    ["", "model.", "weight", "score.weight", "model.layers.0.self_attn.q_proj.qweight",
     "model.layers.00.mlp.up_proj.weight", "model.layers.-1.mlp.up_proj.weight",
     "model.layers.9999999.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight ",
     "model.layers.1.mlp.up_proj.weight.weight", "model.layers.1.mlp.weight",
     "model.layers.1.mlp.up_proj.lora_A.weight", "model.embed_tokens.bias",
     "visual.model.norm.weight", "model.layers.١.mlp.up_proj.weight"],
)  # fmt: skip
def test_names_that_qwen2_has_not(name: str) -> None:
    assert to_gguf_name(name) is None


def test_derived() -> None:
    assert is_derived("model.layers.0.self_attn.rotary_emb.inv_freq")
    assert not is_derived("model.norm.weight")
