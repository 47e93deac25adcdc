"""Writes tiny, valid Qwen2 GGUF files through ``gguf.GGUFWriter``, for the tests of every room."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.random_blocks import FACTORS, random_rows

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Pairs that BPE joins, on the byte alphabet, where a blank is written Ġ.
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġwor l", "Ġworl d", "Ġ t"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5


def byte_alphabet() -> list[str]:
    """Returns the character that byte-level BPE writes for each byte."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def tiny_vocabulary(vocab_size: int) -> tuple[list[str], list[int]]:
    """Returns tokens and their types: bytes, merges, special tokens, then padding."""
    tokens = byte_alphabet() + [merge.replace(" ", "") for merge in MERGES]
    types = [_NORMAL] * len(tokens) + [_CONTROL] * len(SPECIAL)
    tokens += SPECIAL
    if vocab_size < len(tokens):
        raise ValueError(f"the tiny vocabulary needs {len(tokens)} tokens")
    padding = vocab_size - len(tokens)
    tokens += [f"[PAD{i}]" for i in range(len(tokens), vocab_size)]
    return tokens, types + [_UNUSED] * padding


def tiny_metadata(
    *,
    vocab_size: int = 320,
    n_layers: int = 2,
    hidden_size: int = 64,
    intermediate_size: int = 96,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int | None = None,
    rope_theta: float = 1e6,
    rms_norm_eps: float = 1e-6,
    max_context: int = 256,
) -> dict[str, Any]:
    """Returns the metadata of a tiny model: configuration, vocabulary and chat template."""
    tokens, types = tiny_vocabulary(vocab_size)
    metadata: dict[str, Any] = {
        "general.architecture": "qwen2",
        "general.name": "tiny",
        "qwen2.block_count": n_layers,
        "qwen2.context_length": max_context,
        "qwen2.embedding_length": hidden_size,
        "qwen2.feed_forward_length": intermediate_size,
        "qwen2.attention.head_count": n_heads,
        "qwen2.attention.head_count_kv": n_kv_heads,
        "qwen2.attention.layer_norm_rms_epsilon": rms_norm_eps,
        "qwen2.rope.freq_base": rope_theta,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    if head_dim is not None:
        metadata["qwen2.attention.key_length"] = head_dim
        metadata["qwen2.attention.value_length"] = head_dim
    return metadata


def tiny_tensors(
    metadata: Mapping[str, Any], *, tied: bool = True, k_bias: float = 0.5, seed: int = 0
) -> dict[str, np.ndarray]:
    """Returns random float32 tensors by GGUF name, [outputs, inputs], for such metadata.

    ``k_bias`` is the standard deviation of the K bias, which is huge in real models.
    """
    rng = np.random.default_rng(seed)
    hidden = metadata["qwen2.embedding_length"]
    ffn = metadata["qwen2.feed_forward_length"]
    vocab = len(metadata["tokenizer.ggml.tokens"])
    n_heads = metadata["qwen2.attention.head_count"]
    head_dim = metadata.get("qwen2.attention.key_length", hidden // n_heads)
    q, kv = n_heads * head_dim, metadata["qwen2.attention.head_count_kv"] * head_dim

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)

    def vector(length: int, mean: float, deviation: float) -> np.ndarray:
        return rng.normal(mean, deviation, length).astype(np.float32)

    tensors = {"token_embd.weight": matrix(vocab, hidden)}
    for i in range(metadata["qwen2.block_count"]):
        tensors |= {
            f"blk.{i}.attn_norm.weight": vector(hidden, 1.0, 0.1),
            f"blk.{i}.attn_q.weight": matrix(q, hidden),
            f"blk.{i}.attn_q.bias": vector(q, 0.0, 0.5),
            f"blk.{i}.attn_k.weight": matrix(kv, hidden),
            f"blk.{i}.attn_k.bias": vector(kv, 0.0, k_bias),
            f"blk.{i}.attn_v.weight": matrix(kv, hidden),
            f"blk.{i}.attn_v.bias": vector(kv, 0.0, 0.5),
            f"blk.{i}.attn_output.weight": matrix(hidden, q),
            f"blk.{i}.ffn_norm.weight": vector(hidden, 1.0, 0.1),
            f"blk.{i}.ffn_gate.weight": matrix(ffn, hidden),
            f"blk.{i}.ffn_up.weight": matrix(ffn, hidden),
            f"blk.{i}.ffn_down.weight": matrix(hidden, ffn),
        }
    tensors["output_norm.weight"] = vector(hidden, 1.0, 0.1)
    if not tied:
        tensors["output.weight"] = matrix(vocab, hidden)
    return tensors


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    types: str | Mapping[str, str] = "F32",
    version: int = 3,
    alignment: int | None = None,
    shard_tensors: int = 0,
) -> dict[str, np.ndarray]:
    """Writes any metadata and tensors; returns the tensors as a reader sees them, in float32.

    ``types`` is the GGML type of all matrices, or of those that it names, without ``.weight``
    (``{"token_embd": "Q8_0", "blk.0.attn_q": "Q4_0"}``); the rest is F32. Types that ``gguf`` can't
    write get random weights of the same deviation. ``shard_tensors`` splits the model into files
    of so many tensors. Metadata becomes uint32,
    float32, bool, string or array; a ``(value, gguf.GGUFValueType)`` sets the type.
    """
    writer = gguf.GGUFWriter(path, "unused", split_max_tensors=shard_tensors)
    writer.kv_data[0].clear()
    for key, value in metadata.items():
        _add(writer, key, value)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    seen = {}
    for name, tensor in tensors.items():
        kind = types if isinstance(types, str) else types.get(name.removesuffix(".weight"), "F32")
        number = gguf.GGMLQuantizationType[kind if tensor.ndim > 1 else "F32"]
        if number.name in FACTORS and not _can_quantize(number):
            rows, columns = tensor.shape
            std = float(tensor.std())
            data = random_rows(number.name, rows, columns, std=std, seed=len(seen))
        else:
            data = gguf.quants.quantize(tensor, number)
        seen[name] = gguf.quants.dequantize(data, number)
        writer.add_tensor(name, data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if version != 3:
        with open(path, "r+b") as file:
            file.seek(4)
            file.write(struct.pack("<I", version))
    return seen


def _can_quantize(kind: gguf.GGMLQuantizationType) -> bool:
    block_size, _ = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.quants.quantize(np.zeros((1, block_size), np.float32), kind)
    except NotImplementedError:
        return False
    return True


def write_tiny_gguf(
    path: str | Path,
    *,
    tied: bool = True,
    types: str | Mapping[str, str] = "F32",
    k_bias: float = 0.5,
    seed: int = 0,
    version: int = 3,
    shard_tensors: int = 0,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    **sizes: Any,
) -> dict[str, np.ndarray]:
    """Writes a tiny random model and returns its weights as a reader sees them, in float32.

    ``sizes`` are those of ``tiny_metadata``; ``metadata`` and ``tensors`` replace or add entries,
    or remove them with None.
    """
    base = tiny_metadata(**sizes)
    weights = tiny_tensors(base, tied=tied, k_bias=k_bias, seed=seed)
    return write_gguf(
        path,
        _changed(base, metadata),
        _changed(weights, tensors),
        types=types,
        version=version,
        shard_tensors=shard_tensors,
    )


def _changed(base: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    merged = {**base, **(changes or {})}
    return {key: value for key, value in merged.items() if value is not None}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case (plain, gguf.GGUFValueType() as kind):
            writer.add_key_value(key, plain, kind)
        case bool():
            writer.add_bool(key, value)
        case str():
            writer.add_string(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case _:
            writer.add_array(key, value)
