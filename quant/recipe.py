"""Recipes: which type each tensor of a model gets."""

from collections.abc import Callable
from dataclasses import dataclass

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import GgmlType

# What a matrix gets whose rows don't fill whole blocks of the type that was meant for it.
_FALLBACK = {GgmlType.Q8_0: GgmlType.F16, GgmlType.Q4_0: GgmlType.F16}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A choice of types, by the name that users give it.

    ``file_type`` is what GGUF readers know it by (general.file_type); ``choose`` returns the type
    that is meant for a matrix.
    """

    name: str
    file_type: int
    choose: Callable[[str, ModelConfig], GgmlType]

    def type_of(self, name: str, shape: tuple[int, ...], config: ModelConfig) -> GgmlType:
        """Returns the type of a tensor, by its GGUF name and its shape (rows, columns)."""
        # Norms and biases are tiny, and added or multiplied at full precision.
        if len(shape) == 1:
            return GgmlType.F32
        wanted = self.choose(name, config)
        while shape[-1] % wanted.block_size:
            wanted = _FALLBACK[wanted]
        return wanted


def _all(type: GgmlType) -> Callable[[str, ModelConfig], GgmlType]:
    return lambda name, config: type


def _q4_0(name: str, config: ModelConfig) -> GgmlType:
    # Logits show every error of the matrix that makes them: the output, or the tied embedding.
    logits = "token_embd.weight" if config.tie_word_embeddings else "output.weight"
    return GgmlType.Q8_0 if name == logits else GgmlType.Q4_0


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("f32", 0, _all(GgmlType.F32)),
        Recipe("f16", 1, _all(GgmlType.F16)),
        Recipe("bf16", 32, _all(GgmlType.BF16)),
        Recipe("q8_0", 7, _all(GgmlType.Q8_0)),
        Recipe("q4_0", 2, _q4_0),
    )
}
TYPES = tuple(_RECIPES)
"""The names of all recipes."""


def recipe_named(name: str) -> Recipe:
    """Returns a recipe; upper and lower case are one. Raises OptionError for an unknown name."""
    recipe = _RECIPES.get(name.lower())
    if recipe is None:
        raise OptionError(f"{name!r} is no type to quantize to; choose one of {', '.join(TYPES)}")
    return recipe
