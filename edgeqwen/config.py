"""ModelConfig: the sizes and constants of a Qwen2 network, checked, whatever file they came in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeqwen.config_keys import Keys, printable, shown
from edgeqwen.errors import FileFormatError, OptionError, UnsupportedError
from edgeqwen.rope_scaling import MAX_CONTEXT, RopeScaling

__all__ = ["ARCHITECTURE", "ModelConfig", "RopeScaling"]

ARCHITECTURE = "qwen2"

# Far above every model of the family (72B: 80 layers, 8192 hidden, 29568 intermediate), and low
# enough that no product of sizes comes near 2**63.
_MAX_LAYERS = 1024
_MAX_HIDDEN = 1 << 17
_MAX_INTERMEDIATE = 1 << 20
_MAX_VOCAB = 1 << 22
_MAX_HEADS = 1024
_MAX_HEAD_DIM = 1024
_MAX_THETA = 1e12
_MIN_EPS, _MAX_EPS = 1e-20, 0.1
_DEFAULT_THETA = 10000.0  # what GGUF and Hugging Face both mean when a file names no base


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a Qwen2 model is made of. Sizes count elements, ``max_context`` counts tokens."""

    architecture: str
    name: str
    n_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    max_context: int
    tie_word_embeddings: bool
    rope_scaling: RopeScaling | None = None

    @classmethod
    def from_gguf(
        cls,
        metadata: Mapping[str, object],
        *,
        source: str,
        vocab_size: int | None = None,
        tied: bool = True,
    ) -> "ModelConfig":
        """Reads and checks the configuration in a GGUF file's metadata.

        The metadata doesn't say whether an output tensor exists: ``tied`` does. ``vocab_size``
        serves where the file has neither ``qwen2.vocab_size`` nor a vocabulary. Raises
        FileFormatError for values that make no sense, UnsupportedError for another architecture
        or for options that can't be run.
        """
        keys = Keys(metadata, source)
        architecture = keys.text("general.architecture")
        if architecture != ARCHITECTURE:
            raise _unsupported(keys, "general.architecture", f"only {ARCHITECTURE!r} can be run")
        n_heads = keys.integer("qwen2.attention.head_count", 1, _MAX_HEADS)
        hidden_size = keys.integer("qwen2.embedding_length", 1, _MAX_HIDDEN)
        head_dim = _head_dim(keys, "qwen2.attention.key_length", hidden_size, n_heads)
        for key in ("qwen2.attention.value_length", "qwen2.rope.dimension_count"):
            if keys.integer(key, 1, _MAX_HEAD_DIM, head_dim) != head_dim:
                raise _unsupported(keys, key, f"only the head's whole length, {head_dim}, can be")
        context = keys.integer("qwen2.context_length", 1, MAX_CONTEXT)
        window = "qwen2.attention.sliding_window"
        if 0 < keys.integer(window, 0, 1 << 32, 0) < context:
            raise _unsupported(keys, window, "a sliding window can't be run")
        scaling = RopeScaling.from_gguf(keys, context)
        return cls(
            architecture=ARCHITECTURE,
            name=printable(keys.text("general.name", Path(source).stem)),
            n_layers=keys.integer("qwen2.block_count", 1, _MAX_LAYERS),
            hidden_size=hidden_size,
            intermediate_size=keys.integer("qwen2.feed_forward_length", 1, _MAX_INTERMEDIATE),
            vocab_size=_gguf_vocab_size(keys, vocab_size),
            n_heads=n_heads,
            n_kv_heads=_n_kv_heads(keys, "qwen2.attention.head_count_kv", n_heads),
            head_dim=head_dim,
            rope_theta=keys.real("qwen2.rope.freq_base", 1.0, _MAX_THETA, _DEFAULT_THETA),
            rms_norm_eps=keys.real("qwen2.attention.layer_norm_rms_epsilon", _MIN_EPS, _MAX_EPS),
            max_context=scaling.max_context(context) if scaling else context,
            tie_word_embeddings=tied,
            rope_scaling=scaling,
        )

    @classmethod
    def from_hf(cls, config: Mapping[str, object], *, source: str) -> "ModelConfig":
        """Reads and checks a Hugging Face config.json, as transformers 4 or 5 writes it.

        ``source`` is the path of the file: the model is named after its folder. Raises
        FileFormatError for values that make no sense, UnsupportedError for another architecture
        or for options that can't be run.
        """
        keys = Keys(config, source)
        _check_hf_options(keys)
        n_heads = keys.integer("num_attention_heads", 1, _MAX_HEADS)
        hidden_size = keys.integer("hidden_size", 1, _MAX_HIDDEN)
        context = keys.integer("max_position_embeddings", 1, MAX_CONTEXT, 32768)
        theta, scaling = _hf_rope(keys, context)
        return cls(
            architecture=ARCHITECTURE,
            name=printable(Path(source).absolute().parent.name or ARCHITECTURE),
            n_layers=keys.integer("num_hidden_layers", 1, _MAX_LAYERS),
            hidden_size=hidden_size,
            intermediate_size=keys.integer("intermediate_size", 1, _MAX_INTERMEDIATE),
            vocab_size=keys.integer("vocab_size", 1, _MAX_VOCAB),
            n_heads=n_heads,
            n_kv_heads=_n_kv_heads(keys, "num_key_value_heads", n_heads),
            head_dim=_head_dim(keys, "head_dim", hidden_size, n_heads),
            rope_theta=theta,
            rms_norm_eps=keys.real("rms_norm_eps", _MIN_EPS, _MAX_EPS, 1e-6),
            max_context=scaling.max_context(context) if scaling else context,
            tie_word_embeddings=keys.flag("tie_word_embeddings", False),
            rope_scaling=scaling,
        )

    def with_rope_scaling(self, given: Mapping[str, Any]) -> "ModelConfig":
        """Returns the same model with its context scaled, as ``RopeScaling.from_option`` reads it.

        Raises OptionError, also where the file has a scaling of its own and it is another one.
        """
        own = self.rope_scaling
        context = self.max_context if own is None else own.original_max_context
        scaling = RopeScaling.from_option(given, context)
        if own is None:
            longer = max(self.max_context, scaling.scaled_context())
            return replace(self, rope_scaling=scaling, max_context=longer)
        if not scaling.agrees_with(own):
            raise OptionError(
                f"rope_scaling asks for {scaling}, but the file has a RoPE scaling of its own, "
                f"{own}: leave the option out (--yarn)"
            )
        return self

    def to_gguf(self) -> dict[str, str | int | float]:
        """Returns the metadata that says the same in a GGUF file (int: uint32, float: float32)."""
        found: dict[str, str | int | float] = {
            "general.architecture": self.architecture,
            "general.name": self.name,
            "qwen2.block_count": self.n_layers,
            "qwen2.context_length": self.max_context,
            "qwen2.embedding_length": self.hidden_size,
            "qwen2.feed_forward_length": self.intermediate_size,
            "qwen2.attention.head_count": self.n_heads,
            "qwen2.attention.head_count_kv": self.n_kv_heads,
            "qwen2.attention.layer_norm_rms_epsilon": self.rms_norm_eps,
            "qwen2.rope.freq_base": self.rope_theta,
        }
        if self.n_heads * self.head_dim != self.hidden_size:
            found["qwen2.attention.key_length"] = self.head_dim
            found["qwen2.attention.value_length"] = self.head_dim
        if self.rope_scaling is not None:
            found |= self.rope_scaling.to_gguf()
        return found

    def expected_tensors(self) -> dict[str, tuple[int, ...]]:
        """Returns every tensor that must exist, by GGUF name, with its shape (rows, columns)."""
        hidden, ffn = self.hidden_size, self.intermediate_size
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (hidden,),
            "attn_q.weight": (q, hidden),
            "attn_q.bias": (q,),
            "attn_k.weight": (kv, hidden),
            "attn_k.bias": (kv,),
            "attn_v.weight": (kv, hidden),
            "attn_v.bias": (kv,),
            "attn_output.weight": (hidden, q),
            "ffn_norm.weight": (hidden,),
            "ffn_gate.weight": (ffn, hidden),
            "ffn_up.weight": (ffn, hidden),
            "ffn_down.weight": (hidden, ffn),
        }
        found: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab_size, hidden)}
        for i in range(self.n_layers):
            found |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
        found["output_norm.weight"] = (hidden,)
        if not self.tie_word_embeddings:
            found["output.weight"] = (self.vocab_size, hidden)
        return found


def _head_dim(keys: Keys, key: str, hidden_size: int, n_heads: int) -> int:
    """Returns the length of a head; heads share out the hidden size unless the file says other."""
    if key in keys:
        head_dim = keys.integer(key, 2, _MAX_HEAD_DIM)
    elif hidden_size % n_heads:
        raise FileFormatError(
            f"{keys.source}: a hidden size of {hidden_size} can't be shared out among {n_heads} "
            f"heads, and {key} is missing"
        )
    else:
        head_dim = hidden_size // n_heads
    if head_dim % 2 or head_dim > _MAX_HEAD_DIM:
        raise FileFormatError(
            f"{keys.source}: the heads are {head_dim} long, expected an even number up to "
            f"{_MAX_HEAD_DIM} (hidden size {hidden_size}, {n_heads} heads)"
        )
    return head_dim


def _n_kv_heads(keys: Keys, key: str, n_heads: int) -> int:
    n_kv_heads = keys.integer(key, 1, n_heads, n_heads)
    if n_heads % n_kv_heads:
        raise keys.wrong(key, f"a divisor of the {n_heads} heads")
    return n_kv_heads


def _gguf_vocab_size(keys: Keys, rows: int | None) -> int:
    """Returns the size of the vocabulary; the file's statements about it must agree."""
    key, tokens_key = "qwen2.vocab_size", "tokenizer.ggml.tokens"
    tokens = keys.values.get(tokens_key)
    if tokens is not None and (not isinstance(tokens, Sequence) or isinstance(tokens, str)):
        raise keys.wrong(tokens_key, "a list of strings")
    n_tokens = rows if tokens is None else len(tokens)
    if key in keys or n_tokens is None:
        vocab_size = keys.integer(key, 1, _MAX_VOCAB)
        if tokens is not None and n_tokens != vocab_size:
            raise keys.wrong(key, f"{n_tokens}, the length of {tokens_key}")
        return vocab_size
    if not 1 <= n_tokens <= _MAX_VOCAB:
        raise FileFormatError(
            f"{keys.source}: the vocabulary has {n_tokens} tokens, expected 1 to {_MAX_VOCAB}"
        )
    return n_tokens


def _check_hf_options(keys: Keys) -> None:
    """Refuses every Hugging Face option that would make the network another one."""
    if keys.text("model_type") != ARCHITECTURE:
        raise _unsupported(keys, "model_type", f"only {ARCHITECTURE!r} can be converted")
    found = keys.values.get("architectures")
    if found not in (None, ["Qwen2ForCausalLM"]):
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        raise UnsupportedError(
            f"{keys.place('architectures')} is {shown(found)}; "
            "only 'Qwen2ForCausalLM' can be converted"
        )
    if keys.text("hidden_act", "silu") != "silu":
        raise _unsupported(keys, "hidden_act", "only 'silu' can be run")
    if keys.flag("use_sliding_window", False):
        raise _unsupported(keys, "use_sliding_window", "a sliding window can't be run")
    layer_types = keys.values.get("layer_types")
    if layer_types is not None:
        if not isinstance(layer_types, list):
            raise keys.wrong("layer_types", "a list")
        for kind in layer_types:
            if kind != "full_attention":
                raise UnsupportedError(
                    f"{keys.place('layer_types')} holds {shown(kind)}; "
                    "only 'full_attention' can be run"
                )
    if "quantization_config" in keys:
        method = keys.nested("quantization_config").values.get("quant_method")
        raise UnsupportedError(
            f"{keys.place('quantization_config')}: this checkpoint is quantized already "
            f"({shown(method)}); convert the original one, in bf16, f16 or f32"
        )


def _hf_rope(keys: Keys, context: int) -> tuple[float, RopeScaling | None]:
    """Returns the base and the scaling of RoPE, from either generation of config.json."""
    new, old = keys.nested("rope_parameters"), keys.nested("rope_scaling")
    # Model cards tell users to add rope_scaling, so it wins, as it does in transformers.
    rope = old if old.values else new
    for place in (old, new, keys):
        if "rope_theta" in place:
            theta = place.real("rope_theta", 1.0, _MAX_THETA)
            break
    else:
        theta = _DEFAULT_THETA
    return theta, RopeScaling.from_hf(rope, context)


def _unsupported(keys: Keys, key: str, instead: str) -> UnsupportedError:
    return UnsupportedError(f"{keys.place(key)} is {shown(keys.values[key])}; {instead}")
