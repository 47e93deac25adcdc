"""Overrides: types that a user wants for some tensors, whatever the recipe says."""

import re
from collections.abc import Mapping, Sequence

from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.recipe import TENSOR_TYPES


class Overrides:
    """Types by regular expressions, which are searched for in the GGUF names of matrices.

    ``types`` gives the name of a type (``q8_0``) by expression (``attn_v``, ``blk\\.[0-3]\\.``);
    the first that is found in a name decides. Upper and lower case are one, in both. Raises
    OptionError for an expression that isn't one, and for a name that isn't that of a type which
    can be written.
    """

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = [(_compiled(pattern), _type_named(name)) for pattern, name in types.items()]

    def type_of(self, name: str) -> GgmlType | None:
        """Returns the type wanted for a matrix, None where no expression is found in its name."""
        return next((type for pattern, type in self._types if pattern.search(name)), None)

    def check_all_used(self, matrices: Sequence[str]) -> None:
        """Raises OptionError for an expression that is found in none of a model's matrices."""
        for pattern, _ in self._types:
            if not any(map(pattern.search, matrices)):
                raise OptionError(
                    f"tensor type {pattern.pattern!r}: found in the name of no matrix of this "
                    f"model, which are {_some(matrices)} (norms and biases are always F32)"
                )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise OptionError(
            f"tensor type {pattern!r}: is no regular expression ({error}); a part of a name such "
            "as attn_v is one"
        ) from None


def _type_named(name: str) -> GgmlType:
    found = TENSOR_TYPES.get(name.lower())
    if found is None:
        raise OptionError(
            f"{name!r} is no type that a tensor can be converted to; choose one of "
            f"{', '.join(TENSOR_TYPES)}"
        )
    return found


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and so on"
