"""Recipes: which type each tensor of a model gets, by the name that users give."""

from dataclasses import dataclass

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.mixes import MIXES, Mix

# What a matrix gets whose rows don't fill whole blocks of a type: one with smaller blocks and no
# fewer bits, as llama.cpp chooses it. Rows that don't fill blocks of 32 are F16.
_FALLBACK = {
    GgmlType.Q2_K: GgmlType.Q4_0,
    GgmlType.Q3_K: GgmlType.Q4_0,
    GgmlType.Q4_K: GgmlType.Q5_0,
    GgmlType.Q5_K: GgmlType.Q5_1,
    GgmlType.Q6_K: GgmlType.Q8_0,
    GgmlType.IQ4_XS: GgmlType.IQ4_NL,
}
# What GGUF readers know a recipe by (general.file_type).
_FILE_TYPES = {
    "f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q5_1": 9,
    "q5_0": 8, "q4_k_m": 15, "q4_k_s": 14, "q4_1": 3, "q4_0": 2, "iq4_nl": 25, "iq4_xs": 30,
    "q3_k_l": 13, "q3_k_m": 12, "q3_k_s": 11, "q2_k": 10,
}  # fmt: skip
_SHORT_NAMES = {"q5_k": "q5_k_m", "q4_k": "q4_k_m", "q3_k": "q3_k_m"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A choice of types, by the name that users give it.

    ``file_type`` is what GGUF readers know it by (general.file_type).
    """

    name: str
    file_type: int
    mix: Mix

    def wanted(
        self,
        name: str,
        shape: tuple[int, ...],
        config: ModelConfig,
        *,
        has_imatrix: bool = False,
    ) -> GgmlType:
        """Returns the type meant for a tensor, by its GGUF name and its shape (rows, columns).

        Its rows may not fill whole blocks of that type: ``fitting`` returns one of which they do.
        ``has_imatrix`` says whether the importance of columns is known, which changes some choices.
        """
        # Norms and biases are tiny, and added or multiplied at full precision.
        if len(shape) == 1:
            return GgmlType.F32
        return self.mix.type_of(name, shape[-1], config, has_imatrix=has_imatrix)


_RECIPES = {name: Recipe(name, _FILE_TYPES[name], mix) for name, mix in MIXES.items()}
TYPES = tuple(_RECIPES)
"""The names of all recipes, from most bits to least."""

_WRITABLE = dict.fromkeys(mix.base for mix in MIXES.values())
TENSOR_TYPES = {type.name.lower(): type for type in _WRITABLE}
"""The types that a tensor can be converted to, by name, from most bits to least."""


def recipe_named(name: str) -> Recipe:
    """Returns a recipe; upper and lower case are one, and q4_k is q4_k_m, as for q3_k and q5_k.

    Raises OptionError for an unknown name.
    """
    lower = name.lower()
    recipe = _RECIPES.get(_SHORT_NAMES.get(lower, lower))
    if recipe is None:
        raise OptionError(f"{name!r} is no type to quantize to; choose one of {', '.join(TYPES)}")
    return recipe


def fitting(type: GgmlType, columns: int) -> GgmlType:
    """Returns a type, or what takes its place where rows don't fill whole blocks of it."""
    while columns % type.block_size:
        type = _FALLBACK.get(type, GgmlType.F16)
    return type
