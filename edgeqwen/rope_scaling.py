"""RopeScaling: how positions beyond the context of the training are fitted into RoPE, if at all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeqwen.config_keys import Keys, shown
from edgeqwen.errors import FileFormatError, OptionError, UnsupportedError

MAX_CONTEXT = 1 << 24  # float32 can't tell later positions apart
_MAX_FACTOR = 1024.0
_KNOWN = ("linear", "yarn")
_GGUF = "qwen2.rope.scaling."
# What a rope object in config.json may hold; anything else would change the result unseen.
_HF_KEYS = {
    "rope_theta",
    "rope_type",
    "type",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "partial_rotary_factor",
    "truncate",
    "finetuned",
}


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How positions beyond the context of the training are fitted in ("yarn" or "linear").

    ``attn_factor`` is what cosine and sine are multiplied by in all; None is the type's own value,
    see ``attention_factor``. ``beta_fast`` and ``beta_slow`` bound YaRN's ramp, in rotations over
    the original context. Source: YaRN, arXiv 2309.00071.
    """

    type: str
    factor: float
    original_max_context: int
    attn_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    @property
    def attention_factor(self) -> float:
        """What cosine and sine are multiplied by."""
        own = _own_factor(self.type, self.factor)
        return own if self.attn_factor is None else self.attn_factor

    @classmethod
    def from_gguf(cls, keys: Keys, context: int) -> "RopeScaling | None":
        """Reads the scaling from GGUF metadata; None where there is none."""
        factor_key, oldest_key = f"{_GGUF}factor", "qwen2.rope.scale_linear"
        if factor_key not in keys and oldest_key in keys:
            factor_key = oldest_key
        has_factor = factor_key in keys and keys.real(factor_key, 0.0, _MAX_FACTOR) != 0.0
        type_key = f"{_GGUF}type"
        kind = keys.text(type_key, "linear" if has_factor else "none")
        if kind == "none":
            return None
        if kind not in _KNOWN:
            raise _unknown(keys, type_key, kind)
        for key, neutral in (("yarn_ext_factor", (1.0, -1.0)), ("yarn_log_multiplier", (0.0,))):
            if f"{_GGUF}{key}" in keys and keys.real(_GGUF + key, -1e3, 1e3) not in neutral:
                raise _unsupported(keys, _GGUF + key)
        factor = keys.real(factor_key, 1.0, _MAX_FACTOR)
        # GGUF's factors come on top of the type's own one.
        extra = keys.real(f"{_GGUF}attn_factor", 1e-3, 1e3, 1.0)
        extra *= keys.real(f"{_GGUF}yarn_attn_factor", 1e-3, 1e3, 1.0)
        beta_fast, beta_slow = _betas(keys, f"{_GGUF}yarn_")
        return cls(
            type=kind,
            factor=factor,
            original_max_context=keys.integer(
                f"{_GGUF}original_context_length", 1, MAX_CONTEXT, context
            ),
            attn_factor=None if extra == 1.0 else extra * _own_factor(kind, factor),
            beta_fast=beta_fast,
            beta_slow=beta_slow,
        )

    @classmethod
    def from_hf(cls, rope: Keys, context: int) -> "RopeScaling | None":
        """Reads the scaling from the rope object of a config.json; None where there is none."""
        type_key = "rope_type" if "rope_type" in rope else "type"
        kind = rope.text(type_key, "default")
        if kind not in ("default", *_KNOWN):
            raise _unknown(rope, type_key, kind)
        for key in rope.values:
            if key not in _HF_KEYS and key in rope:
                raise _unsupported(rope, key)
        if rope.real("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0:
            raise _unsupported(rope, "partial_rotary_factor")
        if kind == "default":
            return None
        if not rope.flag("truncate", True):
            raise _unsupported(rope, "truncate")
        # Only YaRN has such a factor; the models' own code ignores it elsewhere.
        has_attn = kind == "yarn" and "attention_factor" in rope
        beta_fast, beta_slow = _betas(rope, "")
        return cls(
            type=kind,
            factor=rope.real("factor", 1.0, _MAX_FACTOR),
            original_max_context=rope.integer(
                "original_max_position_embeddings", 1, MAX_CONTEXT, context
            ),
            attn_factor=rope.real("attention_factor", 1e-3, 1e3) if has_attn else None,
            beta_fast=beta_fast,
            beta_slow=beta_slow,
        )

    @classmethod
    def from_option(cls, given: Mapping[str, Any], context: int) -> "RopeScaling":
        """Reads what a user asks for, in the words of config.json: type and factor at least.

        ``context`` is that of the training, where ``original_max_position_embeddings`` names no
        other. Raises OptionError.
        """
        if not isinstance(given, Mapping):
            raise OptionError(
                f"rope_scaling is {shown(given)}: expected a mapping, as "
                '{"rope_type": "yarn", "factor": 4.0}'
            )
        if given.get("rope_theta") is not None:
            raise OptionError("rope_scaling holds rope_theta: the model's own can't be changed")
        try:
            found = cls.from_hf(Keys(given, "rope_scaling"), context)
        except (FileFormatError, UnsupportedError) as error:
            raise OptionError(str(error)) from error
        if found is None:
            raise OptionError(
                "rope_scaling names no type of scaling: expected a rope_type of "
                f"{' or '.join(map(repr, _KNOWN))}; leave it out for none"
            )
        return found

    def to_gguf(self) -> dict[str, str | int | float]:
        """Returns the metadata that says the same in a GGUF file."""
        found: dict[str, str | int | float] = {
            f"{_GGUF}type": self.type,
            f"{_GGUF}factor": self.factor,
            f"{_GGUF}original_context_length": self.original_max_context,
        }
        if self.attn_factor is not None:
            found[f"{_GGUF}attn_factor"] = self.attn_factor / _own_factor(self.type, self.factor)
        if (self.beta_fast, self.beta_slow) != (32.0, 1.0):
            found[f"{_GGUF}yarn_beta_fast"] = self.beta_fast
            found[f"{_GGUF}yarn_beta_slow"] = self.beta_slow
        return found

    def agrees_with(self, other: "RopeScaling") -> bool:
        """Tells whether both are the same, but for what a float32 in a file has lost."""
        numbers = [
            (
                s.factor,
                s.attention_factor,
                *((s.beta_fast, s.beta_slow) if s.type == "yarn" else ()),
            )
            for s in (self, other)
        ]
        return (self.type, self.original_max_context) == (
            other.type,
            other.original_max_context,
        ) and all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(*numbers, strict=True))

    def scaled_context(self) -> int:
        """Returns the tokens of the original context, scaled."""
        return min(int(self.original_max_context * self.factor), MAX_CONTEXT)

    def max_context(self, context: int) -> int:
        """Returns the tokens that fit: YaRN files may still name the context before scaling."""
        if self.type != "yarn":
            return context
        return min(max(context, self.scaled_context()), MAX_CONTEXT)

    def __str__(self) -> str:
        return f"{self.type} by {self.factor:g} of {self.original_max_context} tokens"


def _own_factor(kind: str, factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if kind == "yarn" else 1.0


def _betas(keys: Keys, prefix: str) -> tuple[float, float]:
    """Reads the bounds of the ramp, in rotations. Raises FileFormatError."""
    fast = keys.real(f"{prefix}beta_fast", 1e-3, 1e6, 32.0)
    slow = keys.real(f"{prefix}beta_slow", 1e-3, 1e6, 1.0)
    if fast < slow:
        raise FileFormatError(
            f"{keys.place(f'{prefix}beta_fast')} is {fast:g}, less than {prefix}beta_slow, which "
            f"is {slow:g}; expected more rotations for the fast ones"
        )
    return fast, slow


def _unknown(keys: Keys, key: str, kind: str) -> UnsupportedError:
    return UnsupportedError(
        f"{keys.place(key)} is {shown(kind)}; this version knows the RoPE scaling types "
        f"{' and '.join(map(repr, _KNOWN))}"
    )


def _unsupported(keys: Keys, key: str) -> UnsupportedError:
    return UnsupportedError(
        f"{keys.place(key)} is {shown(keys.values[key])}, a RoPE option that this version can't run"
    )
