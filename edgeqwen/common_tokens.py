"""Whether two models have the same tokens, and so can be compared token by token."""

from collections.abc import Sequence

from edgeqwen.api import Model
from edgeqwen.errors import OptionError

# What messages call two models that were given no names.
NAMES = ("A", "B")


def common_vocabulary(a: Model, b: Model, *, names: tuple[str, str] = NAMES) -> int:
    """Returns how many ids both models have, of which none is another token in the other.

    Ids that stand for nothing in one of them, its padding, may be tokens in the other. Raises
    OptionError for models whose tokens differ; ``names`` are what its message calls them.
    """
    n_vocab = min(a.config.vocab_size, b.config.vocab_size)
    for id in range(n_vocab):
        in_a, in_b = a.tokenizer.token_bytes(id), b.tokenizer.token_bytes(id)
        if in_a != in_b and in_a and in_b:
            raise OptionError(
                f"{names[1]}: token {id} is {_shown(in_b)}, expected {_shown(in_a)} as in "
                f"{names[0]}: models of different vocabularies can't be compared token by token; "
                "take two files of one model, or of one family"
            )
    return n_vocab


def common_tokens(
    a: Model, b: Model, text: str, *, allow_special: bool = False, names: tuple[str, str] = NAMES
) -> list[int]:
    """Returns the ids of a text; OptionError if the models cut it into different ones.

    ``allow_special`` is that of ``Tokenizer.encode``.
    """
    in_a, in_b = (m.tokenizer.encode(text, allow_special=allow_special) for m in (a, b))
    if in_a != in_b:
        # Where already the tokens are different, this says so.
        common_vocabulary(a, b, names=names)
        n_same = next(
            (i for i, ids in enumerate(zip(in_a, in_b, strict=False)) if ids[0] != ids[1]),
            min(len(in_a), len(in_b)),
        )
        here_a, here_b = (_shown_token(m, ids[n_same:]) for m, ids in ((a, in_a), (b, in_b)))
        raise OptionError(
            f"{names[1]} cuts the text into other tokens than {names[0]}: tokens[{n_same}] is "
            f"{here_b}, expected {here_a}: their merges or special tokens differ; take two files "
            "that were converted from one model by the same tool"
        )
    return in_a


def _shown_token(model: Model, ids: Sequence[int]) -> str:
    return _shown(model.tokenizer.token_bytes(ids[0])) if ids else "missing"


def _shown(token: bytes) -> str:
    return repr(token.decode(errors="replace"))
