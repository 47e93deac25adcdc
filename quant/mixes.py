"""Mixes: which type each matrix of a Qwen2 network is meant to get, by the name of the recipe.

A mix spends its bits where they count: on the logits, on attn_v, of which there is little and on
which every token depends, on ffn_down, and on the first and the last layers. The choices are those
of llama.cpp's llama-quantize for this architecture, so that a name means the same file everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edgeqwen.config import ModelConfig
from edgeqwen.ggml_types import GgmlType

_SUPERBLOCK = 256


@dataclass(frozen=True, slots=True)
class Place:
    """A layer of a model: what the rules of a mix look at.

    ``has_imatrix`` says whether the importance of the weights' columns is known.
    """

    layer: int
    n_layers: int
    heads_per_kv: int
    has_imatrix: bool


Condition = Callable[[Place], bool]
Rules = tuple[tuple[Condition, GgmlType], ...]
"""The first condition that holds decides."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The type of most matrices, and the rules for those that may get another."""

    base: GgmlType
    attn_v: Rules = ()
    attn_output: Rules = ()
    ffn_down: Rules = ()

    def type_of(
        self, name: str, columns: int, config: ModelConfig, *, has_imatrix: bool
    ) -> GgmlType:
        """Returns the type meant for a matrix, by its GGUF name and the length of its rows.

        Only the rule for the logits looks at the length; whoever asks sees to it that rows fill
        whole blocks.
        """
        if name == ("token_embd.weight" if config.tie_word_embeddings else "output.weight"):
            return self._logits(columns)
        if not name.startswith("blk."):
            return self.base
        _, layer, part, _ = name.split(".")
        heads_per_kv = config.n_heads // config.n_kv_heads
        place = Place(int(layer), config.n_layers, heads_per_kv, has_imatrix)
        rules: dict[str, Rules] = {
            "attn_v": self.attn_v,
            "attn_output": self.attn_output,
            "ffn_down": self.ffn_down,
        }
        chosen = next((type for holds, type in rules.get(part, ()) if holds(place)), self.base)
        # With 80 layers (72B), attn_v is an eighth of attn_q: more bits cost next to nothing.
        if part == "attn_v" and place.n_layers == 80 and chosen in (GgmlType.Q3_K, GgmlType.Q4_K):
            return GgmlType.Q5_K
        return chosen

    def _logits(self, columns: int) -> GgmlType:
        """Logits show every error of the matrix that makes them."""
        if self.base.block_size == 1:
            return self.base
        fits = columns % _SUPERBLOCK == 0
        return GgmlType.Q6_K if fits and self.base is not GgmlType.Q8_0 else GgmlType.Q8_0


def _everywhere(place: Place) -> bool:
    return True


def _first(n: int) -> Condition:
    return lambda place: place.layer < n


def _first_part(n: int) -> Condition:
    return lambda place: place.layer < place.n_layers // n


def _ends_and_every_third(place: Place) -> bool:
    """The first and the last eighth of the layers, and every third in between."""
    first, last = place.n_layers // 8, 7 * place.n_layers // 8
    return place.layer < first or place.layer >= last or (place.layer - first) % 3 == 2


def _shared_kv(place: Place) -> bool:
    return place.heads_per_kv >= 4


def _first_eighth_by_guess(place: Place) -> bool:
    return not place.has_imatrix and _first_part(8)(place)


def _first_eighth_as_measured(place: Place) -> bool:
    return place.has_imatrix and _first_part(8)(place)


_T = GgmlType
# For the codebook of 16 values; where nobody knows which columns matter, the first layers get more.
_NONLINEAR_V: Rules = ((_shared_kv, _T.Q5_K),)
_NONLINEAR_DOWN: Rules = ((_first_eighth_by_guess, _T.Q5_K),)

MIXES = {
    "f32": Mix(_T.F32),
    "f16": Mix(_T.F16),
    "bf16": Mix(_T.BF16),
    "q8_0": Mix(_T.Q8_0),
    "q6_k": Mix(_T.Q6_K),
    "q5_k_m": Mix(
        _T.Q5_K,
        attn_v=((_ends_and_every_third, _T.Q6_K),),
        ffn_down=((_ends_and_every_third, _T.Q6_K),),
    ),
    "q5_k_s": Mix(_T.Q5_K),
    "q5_1": Mix(_T.Q5_1),
    "q5_0": Mix(_T.Q5_0, ffn_down=((_first_eighth_as_measured, _T.Q5_1),)),
    "q4_k_m": Mix(
        _T.Q4_K,
        attn_v=((_ends_and_every_third, _T.Q6_K),),
        ffn_down=((_ends_and_every_third, _T.Q6_K),),
    ),
    "q4_k_s": Mix(
        _T.Q4_K,
        attn_v=((_first(4), _T.Q5_K),),
        ffn_down=((_first_part(8), _T.Q5_K),),
    ),
    "q4_1": Mix(_T.Q4_1),
    "q4_0": Mix(_T.Q4_0, ffn_down=((_first_eighth_as_measured, _T.Q4_1),)),
    "iq4_nl": Mix(_T.IQ4_NL, attn_v=_NONLINEAR_V, ffn_down=_NONLINEAR_DOWN),
    "iq4_xs": Mix(_T.IQ4_XS, attn_v=_NONLINEAR_V, ffn_down=_NONLINEAR_DOWN),
    "q3_k_l": Mix(
        _T.Q3_K,
        attn_v=((_everywhere, _T.Q5_K),),
        attn_output=((_everywhere, _T.Q5_K),),
        ffn_down=((_everywhere, _T.Q5_K),),
    ),
    "q3_k_m": Mix(
        _T.Q3_K,
        attn_v=((_first(2), _T.Q5_K), (_everywhere, _T.Q4_K)),
        attn_output=((_everywhere, _T.Q4_K),),
        ffn_down=((_first_part(16), _T.Q5_K), (_everywhere, _T.Q4_K)),
    ),
    "q3_k_s": Mix(_T.Q3_K),
    "q2_k": Mix(
        _T.Q2_K,
        attn_v=((_shared_kv, _T.Q4_K), (_everywhere, _T.Q3_K)),
        attn_output=((_everywhere, _T.Q3_K),),
        ffn_down=((_everywhere, _T.Q3_K),),
    ),
}
"""Every mix by the name of its recipe, from most bits to least."""
