"""Writes Hugging Face checkpoints with random weights and real tokenizers, in little memory.

The weights are no noise without shape: they imitate what makes real Qwen2.5 checkpoints hard (huge
K biases, channels with outliers), and are scaled so that hidden states keep their size from layer
to layer and next-token distributions have a moderate entropy.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.hf_tokenizers import tokenizer_files

Floats = npt.NDArray[np.float32]

_CHUNK_WEIGHTS = 1 << 20
_DTYPES = {
    "bf16": ("BF16", "bfloat16", 2),
    "f16": ("F16", "float16", 2),
    "f32": ("F32", "float32", 4),
}
# How much larger the channels with outliers are.
_OUTLIER_SCALE = 16.0
# Small beside what the layers add: with tied embeddings, a token would else predict itself.
_EMBEDDING_STD = 0.05
_HEAD_STD = 0.02


def write_checkpoint(
    folder: Path,
    *,
    n_layers: int = 2,
    hidden_size: int = 64,
    intermediate_size: int = 96,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int | None = None,
    vocab_size: int | None = None,
    tied: bool = True,
    dtype: str = "bf16",
    seed: int = 0,
    k_bias_norm: float = 600.0,
    outlier_channels: int = 2,
    logit_std: float = 3.0,
    sharded: bool = False,
    config_generation: int = 1,
    tokenizer: str = "small",
    max_context: int = 4096,
    rope_theta: float = 1e6,
    rms_norm_eps: float = 1e-6,
    rope_scaling: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a whole checkpoint and returns its folder, which is made.

    ``vocab_size`` None is that of the tokenizer, rounded up to a multiple of 64. ``dtype`` is
    "bf16", "f16" or "f32". ``k_bias_norm`` is the norm of the K bias in the first and the last
    layer; in between it is a 25th of it. ``outlier_channels`` is how many hidden channels carry
    values 16 times as large. ``logit_std`` sets the spread of the logits, and so the entropy:
    about ln(vocab_size) - logit_std**2 / 2 nats. ``config_generation`` 2 is what transformers 5
    writes. ``tokenizer`` is "small" (trained on a few sentences), "small-slow" (the same as
    vocab.json and merges.txt) or "real" (from ../shared/data, 151665 tokens). ``config`` is merged
    into config.json; None deletes a key. The same arguments give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, n_tokens = tokenizer_files(tokenizer)
    if vocab_size is None:
        vocab_size = -(-n_tokens // 64) * 64
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    head_dim = head_dim or hidden_size // n_heads
    content: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": max_context,
        "max_window_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_hidden_layers": n_layers,
        "num_key_value_heads": n_kv_heads,
        "rms_norm_eps": rms_norm_eps,
        "tie_word_embeddings": tied,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocab_size,
        **_token_ids(files),
        **_generation(config_generation, dtype, n_layers, rope_theta, rope_scaling),
        **(config or {}),
    }
    if head_dim * n_heads != hidden_size:
        content["head_dim"] = head_dim
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(content, indent=2))

    shapes = tensor_shapes(
        n_layers, hidden_size, intermediate_size, n_heads, n_kv_heads, head_dim, vocab_size, tied
    )
    weights = RandomWeights(
        shapes, seed, head_dim, n_layers, k_bias_norm, outlier_channels, logit_std, tied
    )
    _write_weights(folder, weights, dtype, 3 if sharded else 1)
    return folder


def tensor_shapes(
    n_layers: int,
    hidden: int,
    intermediate: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    vocab_size: int,
    tied: bool,
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors by their Hugging Face names."""
    q, kv = n_heads * head_dim, n_kv_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab_size, hidden)}
    for i in range(n_layers):
        layer = f"model.layers.{i}."
        shapes |= {
            f"{layer}input_layernorm.weight": (hidden,),
            f"{layer}self_attn.q_proj.weight": (q, hidden),
            f"{layer}self_attn.q_proj.bias": (q,),
            f"{layer}self_attn.k_proj.weight": (kv, hidden),
            f"{layer}self_attn.k_proj.bias": (kv,),
            f"{layer}self_attn.v_proj.weight": (kv, hidden),
            f"{layer}self_attn.v_proj.bias": (kv,),
            f"{layer}self_attn.o_proj.weight": (hidden, q),
            f"{layer}post_attention_layernorm.weight": (hidden,),
            f"{layer}mlp.gate_proj.weight": (intermediate, hidden),
            f"{layer}mlp.up_proj.weight": (intermediate, hidden),
            f"{layer}mlp.down_proj.weight": (hidden, intermediate),
        }
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (vocab_size, hidden)
    return shapes


class RandomWeights:
    """Random weights that behave like a trained model's, made chunk by chunk."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        seed: int,
        head_dim: int,
        n_layers: int,
        k_bias_norm: float,
        outlier_channels: int,
        logit_std: float,
        tied: bool,
    ) -> None:
        self.shapes = shapes
        self._seed, self._head_dim, self._last = seed, head_dim, n_layers - 1
        self._k_bias_norm, self._logit_std, self._tied = k_bias_norm, logit_std, tied
        hidden = shapes["model.norm.weight"][0]
        # How much larger each channel of the residual stream is.
        self._gain = np.ones(hidden, np.float32)
        rng = np.random.default_rng([seed, 1 << 20])
        self._gain[rng.permutation(hidden)[:outlier_channels]] = _OUTLIER_SCALE

    def rows(self, name: str) -> Iterator[Floats]:
        """Yields the rows of a tensor in order, some at a time: float32 [n, columns]."""
        shape = self.shapes[name]
        rng = np.random.default_rng([self._seed, list(self.shapes).index(name)])
        if len(shape) == 1:
            yield self._vector(name, shape[0], rng)[None]
            return
        step = max(1, _CHUNK_WEIGHTS // shape[1])
        for first in range(0, shape[0], step):
            n = min(step, shape[0] - first)
            x = rng.standard_normal((n, shape[1]), np.float32)
            x *= self._std(name, shape)
            if name == "model.embed_tokens.weight":
                x *= self._gain
            elif "o_proj" in name or "down_proj" in name:
                x *= self._gain[first : first + n, None]
            yield x

    def _std(self, name: str, shape: tuple[int, ...]) -> np.float32:
        if name == "model.embed_tokens.weight":
            return np.float32(_EMBEDDING_STD)
        if name == "lm_head.weight":
            return np.float32(_HEAD_STD)
        # SwiGLU makes numbers smaller; down_proj makes up for it.
        return np.float32((3.0 if "down_proj" in name else 1.0) / math.sqrt(shape[1]))

    def _vector(self, name: str, n: int, rng: np.random.Generator) -> Floats:
        if name.endswith("k_proj.bias"):
            return self._k_bias(int(name.split(".")[2]), n, rng)
        if name.endswith("bias"):
            return rng.standard_normal(n, np.float32) * np.float32(0.5)
        jitter = 1 + np.float32(0.1) * rng.standard_normal(n, np.float32)
        if name != "model.norm.weight":
            return jitter
        # Every channel shall add about as much to the logits, logit_std in all.
        rms = math.sqrt(float(np.mean(self._gain**2)))
        std = _EMBEDDING_STD if self._tied else _HEAD_STD
        gain = self._gain**2 if self._tied else self._gain
        return np.float32(self._logit_std * rms / (std * math.sqrt(n))) / gain * jitter

    def _k_bias(self, layer: int, n: int, rng: np.random.Generator) -> Floats:
        """Puts most of the bias on channels that RoPE hardly turns, as training does."""
        heads = rng.standard_normal((n // self._head_dim, 2, self._head_dim // 2), np.float32)
        slow = np.arange(self._head_dim // 2) >= self._head_dim * 3 // 8
        heads *= np.where(slow, np.float32(1), np.float32(0.003))
        bias = heads.reshape(n)
        norm = self._k_bias_norm / (1 if layer in (0, self._last) else 25)
        return bias * np.float32(norm / max(float(np.linalg.norm(bias)), 1e-30))


def to_bytes(x: Floats, dtype: str) -> bytes:
    """Returns float32 values as the little-endian bytes of a dtype, rounded to nearest even."""
    if dtype == "f32":
        return x.astype("<f4", copy=False).tobytes()
    if dtype == "f16":
        return x.astype("<f2").tobytes()
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def safetensors_header(
    entries: Mapping[str, tuple[str, tuple[int, ...], int]],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Returns the header of a safetensors file; entries are (dtype, shape, bytes) by name."""
    content: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, (dtype, shape, n_bytes) in entries.items():
        content[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + n_bytes],
        }
        offset += n_bytes
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_weights(folder: Path, weights: RandomWeights, dtype: str, n_shards: int) -> None:
    code, _, size = _DTYPES[dtype]
    names = list(weights.shapes)
    weight_map, total = {}, 0
    for shard in range(n_shards):
        chosen = names[len(names) * shard // n_shards : len(names) * (shard + 1) // n_shards]
        file = "model.safetensors"
        if n_shards > 1:
            file = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        entries = {}
        for name in chosen:
            shape = weights.shapes[name]
            entries[name] = (code, shape, math.prod(shape) * size)
            weight_map[name] = file
            total += math.prod(shape) * size
        with open(folder / file, "wb") as out:
            out.write(safetensors_header(entries, {"format": "pt"}))
            for name in chosen:
                for rows in weights.rows(name):
                    out.write(to_bytes(rows, dtype))
    if n_shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _token_ids(files: Mapping[str, str]) -> dict[str, int]:
    settings = json.loads(files["generation_config.json"])
    return {"bos_token_id": settings["bos_token_id"], "eos_token_id": settings["eos_token_id"][0]}


def _generation(
    number: int,
    dtype: str,
    n_layers: int,
    rope_theta: float,
    rope_scaling: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns the keys in which the two generations of config.json differ."""
    name = _DTYPES[dtype][1]
    if number == 1:
        return {
            "rope_theta": rope_theta,
            "rope_scaling": dict(rope_scaling) if rope_scaling else None,
            "sliding_window": 4096,
            "torch_dtype": name,
            "transformers_version": "4.43.1",
        }
    scaling = dict(rope_scaling or {"rope_type": "default"})
    scaling["rope_type"] = scaling.pop("type", scaling.get("rope_type"))
    return {
        "dtype": name,
        "layer_types": ["full_attention"] * n_layers,
        "rope_parameters": {"rope_theta": rope_theta, **scaling},
        "sliding_window": None,
        "transformers_version": "5.0.0",
    }
