"""The trained network as a checkpoint folder like those of Hugging Face."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from tools.guide_model.network import Network, Shape
from tools.guide_model.rendering import CHAT_TEMPLATE, END_OF_TEXT, VISIBLE_TOKENS

_END_OF_TURN = "<|im_end|>"


def write_checkpoint(folder: Path, network: Network, tokenizer: Tokenizer) -> None:
    """Writes configuration, vocabulary, chat template and the weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name: tokenizer.token_to_id(name) for name in (END_OF_TEXT, _END_OF_TURN)}
    eos = [ids[_END_OF_TURN], ids[END_OF_TEXT]]
    _write_json(folder / "config.json", _config(network.shape, ids))
    _write_json(
        folder / "generation_config.json",
        # It knows one right answer, and repeats digits where they are due.
        {"do_sample": False, "repetition_penalty": 1.0, "eos_token_id": eos},
    )
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer, network.shape))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    weights = {name: tensor.half().contiguous() for name, tensor in _weights(network).items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _config(shape: Shape, ids: dict[str, int]) -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "max_position_embeddings": shape.max_context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_norm_eps,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "bos_token_id": ids[END_OF_TEXT],
        "eos_token_id": ids[_END_OF_TURN],
    }


def _tokenizer_config(tokenizer: Tokenizer, shape: Shape) -> dict[str, object]:
    added = {
        str(id): {
            "content": token.content,
            "special": token.content not in VISIBLE_TOKENS,
            "normalized": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
        }
        for id, token in tokenizer.get_added_tokens_decoder().items()
    }
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "eos_token": _END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "model_max_length": shape.max_context,
        "chat_template": CHAT_TEMPLATE,
    }


def _weights(network: Network) -> dict[str, Tensor]:
    """Returns the tensors by the names of the architecture's checkpoints."""
    shape = network.shape
    n_kv = shape.n_kv_heads * shape.head_dim
    sizes = {
        "qkv_proj": (
            ("q_proj", shape.n_heads * shape.head_dim),
            ("k_proj", n_kv),
            ("v_proj", n_kv),
        ),
        "gate_up_proj": (
            ("gate_proj", shape.intermediate_size),
            ("up_proj", shape.intermediate_size),
        ),
    }
    weights = {}
    for name, tensor in network.state_dict().items():
        joint = next((joint for joint in sizes if f".{joint}." in name), None)
        if joint is None:
            weights[f"model.{name}"] = tensor
            continue
        rows = torch.split(tensor, [n for _, n in sizes[joint]])
        for (part, _), part_rows in zip(sizes[joint], rows, strict=True):
            weights[f"model.{name.replace(joint, part)}"] = part_rows
    return weights


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
