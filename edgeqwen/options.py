"""The arguments of a generation, checked before any work is done."""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from edgeqwen.errors import ContextFullError, OptionError
from edgeqwen.sampling import SamplingOptions


class SamplingKeywords(TypedDict, total=False):
    """``SamplingOptions`` as keyword arguments; None, like absence, means the model's default."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What to generate: checked, and complete."""

    prompt: Sequence[int]
    sampling: SamplingOptions
    max_tokens: int | None
    stop: tuple[str, ...]
    progress: Callable[[int, int], None] | None

    @classmethod
    def checked(
        cls,
        prompt: Sequence[int],
        sampling: SamplingOptions,
        *,
        max_context: int,
        max_tokens: int | None,
        stop: str | Iterable[str],
        progress: Callable[[int, int], None] | None,
        too_long: str = "",
    ) -> "Request":
        """Raises OptionError on senseless options, ContextFullError on a prompt too long.

        ``too_long``: what else can be done about the latter, for the end of the message.
        """
        check_fits(len(prompt), max_context, too_long)
        return cls(
            prompt=prompt,
            sampling=sampling,
            max_tokens=None if max_tokens is None else positive_integer(max_tokens, "max_tokens"),
            stop=stop_strings(stop),
            progress=progress,
        )


def check_fits(n_tokens: int, max_context: int, advice: str = "") -> None:
    """Raises ContextFullError if so many tokens don't fit into the context."""
    if n_tokens > max_context:
        raise ContextFullError(
            f"the prompt has {n_tokens} tokens, but the context holds {max_context}: shorten it, "
            f"or load the model with max_context={n_tokens} (--context {n_tokens}) or more, "
            f"if it was trained for so many{advice}"
        )


def sampling_options(defaults: SamplingOptions, changes: SamplingKeywords) -> SamplingOptions:
    """Returns the defaults with the options that were given; OptionError on unknown names."""
    known = [field.name for field in dataclasses.fields(SamplingOptions)]
    for name in changes:
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise OptionError(f"unknown option {name!r}: {hint}")
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    return defaults.replace(**given) if given else defaults


def positive_integer(value: object, name: str) -> int:
    """Returns a whole number of at least 1; OptionError for anything else, True included."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise OptionError(f"{name} is {value!r}: expected a whole number of at least 1")
    return number


def stop_strings(stop: str | Iterable[str]) -> tuple[str, ...]:
    """Returns the stop strings as a tuple; a single one may be given as it is."""
    if not isinstance(stop, Iterable):
        raise OptionError(f"stop is {stop!r}: expected a string or several")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for item in stops:
        if not isinstance(item, str) or not item:
            raise OptionError(f"stop holds {item!r}: expected strings of at least one character")
    return stops


def text_argument(text: object, name: str) -> str:
    """Returns the text; OptionError if it is no string."""
    if not isinstance(text, str):
        raise OptionError(f"{name} is {_kind(text)}: expected a string")
    return text


def token_ids(tokens: object, vocab_size: int, name: str) -> list[int]:
    """Returns the tokens as a list of int; OptionError unless each is an id of the vocabulary."""
    if isinstance(tokens, (str, bytes, bytearray)) or not isinstance(tokens, Iterable):
        raise OptionError(
            f"{name} is {_kind(tokens)}: expected a sequence of token ids; "
            "model.tokenizer.encode(text) makes one"
        )
    ids = []
    for i, token in enumerate(tokens):
        try:
            if isinstance(token, bool):
                raise TypeError
            number = operator.index(token)
        except TypeError:
            raise OptionError(f"{name}[{i}] is {token!r}: expected a token id") from None
        if not 0 <= number < vocab_size:
            raise OptionError(
                f"{name}[{i}] is {number}: token ids of this model go from 0 to {vocab_size - 1}"
            )
        ids.append(number)
    if not ids:
        raise OptionError(f"{name} is empty: give at least one token")
    return ids


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
