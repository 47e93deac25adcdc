"""What Hugging Face calls a tensor, and what GGUF calls it."""

import re

_LAYER = re.compile(r"(?:model\.)?layers\.(0|[1-9][0-9]{0,5})\.(.+)")
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_TO_HF_LAYER = {gguf: hf for hf, gguf in _IN_LAYER.items()}
_TO_HF_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def to_gguf_name(name: str) -> str | None:
    """Returns GGUF's name of a Hugging Face tensor, or None if Qwen2 has no such tensor.

    Checkpoints of the bare network, without a head, lack the prefix "model."; both are known.
    """
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    match = _LAYER.fullmatch(name)
    if match is None:
        return _OUTSIDE.get(name.removeprefix("model."))
    part, _, kind = match[2].rpartition(".")
    if part not in _IN_LAYER or kind not in ("weight", "bias"):
        return None
    return f"blk.{match[1]}.{_IN_LAYER[part]}.{kind}"


def to_hf_name(name: str) -> str:
    """Returns the usual Hugging Face name of a tensor that ``to_gguf_name`` can return."""
    if name in _TO_HF_OUTSIDE:
        return _TO_HF_OUTSIDE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_TO_HF_LAYER[part]}.{kind}"


def is_derived(name: str) -> bool:
    """Says whether a tensor only repeats what the configuration says; old checkpoints hold some."""
    return name.endswith(".rotary_emb.inv_freq")
