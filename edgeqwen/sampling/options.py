"""How the next token is chosen: the options, their defaults and what values make sense."""

import dataclasses
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeqwen.errors import FileFormatError, OptionError

# Where a model file keeps what its makers recommend.
_FILE_KEYS = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
# Below this, differences between logits would overflow; it is greedy for all purposes.
_MIN_TEMPERATURE = 1e-6


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is chosen. The defaults are those of Qwen2.5 Instruct.

    In this order: penalties, temperature, top-k, top-p, min-p, and a draw from what is left.
    Raises OptionError for values that make no sense.
    """

    temperature: float = 0.7
    """Divides the logits; 0 takes the likeliest token, after the penalties."""
    top_k: int = 20
    """Keeps this many of the likeliest tokens; 0 keeps all."""
    top_p: float = 0.8
    """Keeps the likeliest tokens until they have this share of the probability."""
    min_p: float = 0.0
    """Drops tokens below this share of the likeliest one's probability."""
    repetition_penalty: float = 1.05
    """Divides positive logits, multiplies negative ones, of tokens in prompt and answer."""
    presence_penalty: float = 0.0
    """Is subtracted once from the logits of tokens that the answer holds."""
    frequency_penalty: float = 0.0
    """Is subtracted from logits as many times as the answer holds the token."""
    seed: int | None = None
    """The same seed gives the same tokens; None draws a new one every time."""

    def __post_init__(self) -> None:
        self._set("temperature", self._number("temperature", 0, math.inf, "of at least 0"))
        self._set("top_k", self._integer("top_k", "of at least 0 (0 keeps all tokens)"))
        self._set("top_p", self._number("top_p", 0, 1, "above 0, up to 1"))
        self._set("min_p", self._number("min_p", 0, 1, "from 0 to 1"))
        self._set(
            "repetition_penalty",
            self._number("repetition_penalty", 0, math.inf, "above 0 (1 means none)"),
        )
        for name in ("presence_penalty", "frequency_penalty"):
            self._set(name, self._number(name, -2, 2, "from -2 to 2"))
        if self.seed is not None:
            self._set("seed", self._integer("seed", "from 0 to 2**64 - 1, or None"))
        if 0 < self.temperature < _MIN_TEMPERATURE:
            self._refuse("temperature", f"0 (greedy), or at least {_MIN_TEMPERATURE:g}")
        if self.top_p == 0:
            self._refuse("top_p", "a number above 0, up to 1; top_k=1 keeps only the likeliest")
        if not 1e-6 <= self.repetition_penalty <= 1e6:
            self._refuse("repetition_penalty", "a number above 0 (1 means none)")
        if self.seed is not None and self.seed >= 1 << 64:
            self._refuse("seed", "a whole number from 0 to 2**64 - 1, or None")

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "SamplingOptions":
        """Returns what the file recommends in ``general.sampling.*``, and the defaults otherwise.

        Raises FileFormatError for values that make no sense.
        """
        options = cls()
        for name, key in _FILE_KEYS.items():
            if key not in metadata:
                continue
            try:
                options = options.replace(**{name: metadata[key]})
            except OptionError as error:
                raise FileFormatError(f"{key} in the model file: {error}") from None
        return options

    def replace(self, **changes: Any) -> "SamplingOptions":
        """Returns a copy with other values; OptionError for senseless ones, TypeError for names."""
        return dataclasses.replace(self, **changes)

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)

    def _number(self, name: str, low: float, high: float, expected: str) -> float:
        value = getattr(self, name)
        try:
            if isinstance(value, bool | str | bytes):
                raise TypeError
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not (low <= number <= high and math.isfinite(number)):
            self._refuse(name, f"a number {expected}")
        return number

    def _integer(self, name: str, expected: str) -> int:
        value = getattr(self, name)
        try:
            if isinstance(value, bool):
                raise TypeError
            number = operator.index(value)
        except TypeError:
            number = -1
        if number < 0:
            self._refuse(name, f"a whole number {expected}")
        return number

    def _refuse(self, name: str, expected: str) -> None:
        raise OptionError(f"{name} is {getattr(self, name)!r}: expected {expected}")
