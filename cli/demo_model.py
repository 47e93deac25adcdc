"""The model that ``edgeqwen chat`` uses when it is given none: tiny, random, and honest about it.

It is made once, through the real converter, from a checkpoint folder as Hugging Face has them.
"""

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeqwen.folders import user_cache

if TYPE_CHECKING:
    import numpy as np

EXPLANATION = """\
No model was given: this one is tiny and RANDOM, it answers nonsense.
To talk to a real one, get the folder of a Qwen2.5 Instruct checkpoint
(config.json, tokenizer.json, *.safetensors), then run
    edgeqwen quantize FOLDER -t q4_0 -o model.gguf
    edgeqwen chat model.gguf"""
MAX_TOKENS = 24

# Part of the file's name: counted up whenever the model below changes.
_VERSION = 1

_HIDDEN_SIZE = 64
_N_LAYERS = 2
_N_HEADS = 2
_INTERMEDIATE_SIZE = 128
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# A multiple of 32, so that some ids belong to no token, as in real checkpoints.
_VOCAB_SIZE = 288
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def find_or_build() -> Path:
    """Returns the path of the demonstration model, which it makes when there is none yet."""
    path = user_cache() / f"demonstration-{_VERSION}.gguf"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        build(path)
    except OSError:
        # A cache folder that can't be written only costs making the model every time.
        folder = Path(tempfile.mkdtemp(prefix="edgeqwen-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = folder / path.name
        build(path)
    return path


def build(path: Path) -> None:
    """Writes the model as GGUF; the file appears complete or not at all."""
    from edgeqwen.quant import quantize

    with tempfile.TemporaryDirectory(prefix="edgeqwen-") as folder:
        # The model is named after the folder.
        checkpoint = Path(folder) / "random demonstration"
        checkpoint.mkdir()
        write_checkpoint(checkpoint)
        quantize(checkpoint, path, "q4_0")


def write_checkpoint(folder: Path) -> None:
    """Writes a Hugging Face checkpoint folder: configuration, vocabulary and random weights."""
    special = {content: 256 + i for i, content in enumerate(_SPECIAL)}
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": _HIDDEN_SIZE,
        "intermediate_size": _INTERMEDIATE_SIZE,
        "num_hidden_layers": _N_LAYERS,
        "num_attention_heads": _N_HEADS,
        "num_key_value_heads": 1,
        "vocab_size": _VOCAB_SIZE,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "eos_token_id": special["<|im_end|>"],
        "bos_token_id": special["<|endoftext|>"],
    }
    tokenizer_config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {
            str(id): {"content": content, "special": True} for content, id in special.items()
        },
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": _CHAT_TEMPLATE,
    }
    for name, content in (
        ("config.json", config),
        ("generation_config.json", {"temperature": 0.7, "top_p": 0.8, "top_k": 20}),
        ("tokenizer_config.json", tokenizer_config),
        ("vocab.json", _byte_tokens()),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    # No two bytes are ever merged into one token.
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    _write_safetensors(folder / "model.safetensors", _weights())


def _byte_tokens() -> dict[str, int]:
    """Returns a vocabulary of one token for each byte."""
    # Byte-level BPE writes a byte that is no printable character as one from U+0100 on.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    shown = {byte: 0x100 + i for i, byte in enumerate(others)}
    return {chr(shown.get(byte, byte)): byte for byte in range(256)}


def _weights() -> "dict[str, np.ndarray]":
    """Returns random weights by their Hugging Face names, of a model that prefers letters."""
    import numpy as np

    rng = np.random.default_rng(2)
    head_dim = _HIDDEN_SIZE // _N_HEADS

    def matrix(rows: int, columns: int, scale: float = 0.05) -> np.ndarray:
        return rng.normal(scale=scale, size=(rows, columns)).astype(np.float32)

    embedding = matrix(_VOCAB_SIZE, _HIDDEN_SIZE, 1.0)
    output = matrix(_VOCAB_SIZE, _HIDDEN_SIZE, 0.5)
    # The first feature is the same large number for every token and nothing changes it, so its
    # column in the output works as a bias: towards letters and spaces, away from all the rest.
    embedding[:, 0] = 16.0
    output[:, 0] = -8.0
    letters = [*range(ord("a"), ord("z") + 1), ord(" ")]
    output[letters, 0] = 8.0
    weights = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": output,
        "model.norm.weight": np.ones(_HIDDEN_SIZE, np.float32),
    }
    for i in range(_N_LAYERS):
        layer = {
            "self_attn.q_proj.weight": matrix(_HIDDEN_SIZE, _HIDDEN_SIZE),
            "self_attn.k_proj.weight": matrix(head_dim, _HIDDEN_SIZE),
            "self_attn.v_proj.weight": matrix(head_dim, _HIDDEN_SIZE),
            "self_attn.o_proj.weight": matrix(_HIDDEN_SIZE, _HIDDEN_SIZE),
            "mlp.gate_proj.weight": matrix(_INTERMEDIATE_SIZE, _HIDDEN_SIZE),
            "mlp.up_proj.weight": matrix(_INTERMEDIATE_SIZE, _HIDDEN_SIZE),
            "mlp.down_proj.weight": matrix(_HIDDEN_SIZE, _INTERMEDIATE_SIZE),
            "input_layernorm.weight": np.ones(_HIDDEN_SIZE, np.float32),
            "post_attention_layernorm.weight": np.ones(_HIDDEN_SIZE, np.float32),
        }
        for name, n in (("q", _HIDDEN_SIZE), ("k", head_dim), ("v", head_dim)):
            layer[f"self_attn.{name}_proj.bias"] = matrix(1, n)[0]
        layer["self_attn.o_proj.weight"][0] = 0
        layer["mlp.down_proj.weight"][0] = 0
        weights |= {f"model.layers.{i}.{name}": array for name, array in layer.items()}
    return weights


def _write_safetensors(path: Path, tensors: "dict[str, np.ndarray]") -> None:
    """Writes float32 tensors: the header's length, the header as JSON, then the data in order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            file.write(tensor.tobytes())
