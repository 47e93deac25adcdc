"""The vocabulary of a GGUF file: tokens, their types and merges, checked against each other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeqwen.config_keys import shown
from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.gguf_arrays import NumberArray, StringArray
from edgeqwen.text.byte_level import BYTE_OF_CHARACTER, CHARACTER_OF_BYTE
from edgeqwen.text.merging import BadMergeError, DuplicateTokenError, MergeTable, TokenIndex

# Beyond this, looking for special tokens would slow down every prompt; real files have about 30.
MAX_SPECIAL = 4096
# Texts are searched for all of them at once, in time that grows with their length.
MAX_SPECIAL_LENGTH = 256

# The pre-tokenizers that are Qwen2's under other names.
_KNOWN_PRE = re.compile(r"qwen-?2([.-]?5)?([-_.](coder|math|instruct|base))?|deepseek-r1-qwen")
# Padding up to the number of rows in the embedding; some converters type it USER_DEFINED.
_PADDING = re.compile(r"\[PAD\d+\]")
# What ends an answer, whichever of them the file names as its end-of-sequence token.
_ENDERS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)


class TokenType(IntEnum):
    """The values of ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id and everything that is known of them; made by ``from_gguf`` only.

    ``control`` and ``user_defined`` map the texts of special tokens to ids. ``unused`` ids stand
    for nothing. ``byte_ids`` are those of tokens that are a byte each, written ``<0x0A>``.
    """

    source: str
    tokens: StringArray
    merges: MergeTable
    control: dict[str, int]
    user_defined: dict[str, int]
    unused: frozenset[int]
    byte_ids: dict[int, int]
    eos_ids: frozenset[int]
    bos_id: int | None

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], *, source: str) -> "Vocabulary":
        """Reads and checks ``tokenizer.ggml.*``; ``source`` names the file in messages.

        Raises FileFormatError where keys are missing or contradict each other and
        UnsupportedError for another kind of tokenizer.
        """
        _check_kind(metadata, source)
        tokens = _strings(metadata, "tokens", source)
        if not tokens:
            raise FileFormatError(f"{source}: tokenizer.ggml.tokens is empty, expected tokens")
        types = _types(metadata, len(tokens), source)
        index = _index(tokens, source)
        control: dict[str, int] = {}
        user_defined: dict[str, int] = {}
        unused: set[int] = set()
        byte_ids: dict[int, int] = {}
        others = np.flatnonzero(types != TokenType.NORMAL)
        for i, kind in zip(others.tolist(), types[others].tolist(), strict=True):
            token = tokens[i]
            if kind == TokenType.UNUSED or _PADDING.fullmatch(token):
                unused.add(i)
            elif kind == TokenType.CONTROL:
                control[token] = i
            elif kind == TokenType.USER_DEFINED:
                user_defined[token] = i
            elif kind == TokenType.BYTE:
                byte_ids[i] = _byte(token, i, source)
        special = control | user_defined
        _check_special(special, source)
        alphabet = _alphabet(tokens, source)
        eos_ids = {special[text] for text in _ENDERS if text in special}
        for key in ("eos_token_id", "eot_token_id"):
            if (eos_id := metadata.get(f"tokenizer.ggml.{key}")) is not None:
                eos_ids.add(_checked_id(eos_id, key, len(tokens), source))
        bos_id = metadata.get("tokenizer.ggml.bos_token_id")
        merges = _merges(metadata, tokens, types, source)
        return cls(
            source=source,
            tokens=tokens,
            merges=_merge_table(index, merges, tokens, alphabet, source),
            control=control,
            user_defined=user_defined,
            unused=frozenset(unused),
            byte_ids=byte_ids,
            eos_ids=frozenset(eos_ids),
            # Nothing is ever prepended, so a bad id here does no harm.
            bos_id=bos_id if type(bos_id) is int and 0 <= bos_id < len(tokens) else None,
        )


def _check_kind(metadata: Mapping[str, Any], source: str) -> None:
    model = metadata.get("tokenizer.ggml.model")
    if model is None:
        raise FileFormatError(
            f"{source}: tokenizer.ggml.model is missing: the file holds no tokenizer; "
            "convert the checkpoint again together with its tokenizer files"
        )
    if model != "gpt2":
        raise UnsupportedError(
            f"{source}: tokenizer.ggml.model is {shown(model)}, expected 'gpt2' (byte-level BPE), "
            "which every Qwen2.5 model has"
        )
    pre = metadata.get("tokenizer.ggml.pre")
    # Files from before the key existed leave it out; the architecture says the same.
    if pre is None and metadata.get("general.architecture") == "qwen2":
        return
    if not isinstance(pre, str) or not _KNOWN_PRE.fullmatch(pre):
        raise UnsupportedError(
            f"{source}: tokenizer.ggml.pre is {shown(pre)}, expected 'qwen2' or "
            "'deepseek-r1-qwen': the file's text would be split in a way that this version doesn't "
            "know"
        )


def _strings(metadata: Mapping[str, Any], name: str, source: str) -> StringArray:
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key)
    if value is None:
        raise FileFormatError(
            f"{source}: {key} is missing; convert the checkpoint again with its tokenizer files"
        )
    if isinstance(value, StringArray):
        return value
    strings = _elements(value)
    if strings is None or not set(map(type, strings)) <= {str}:
        raise FileFormatError(f"{source}: {key} is no array of strings; the file is damaged")
    try:
        return StringArray.of(strings)
    except UnicodeEncodeError as error:
        raise FileFormatError(
            f"{source}: {key} holds {shown(error.object)}, a lone surrogate in it, expected text "
            "that UTF-8 can say; the file is damaged"
        ) from None


def _elements(value: object) -> list[Any] | None:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None


def _types(metadata: Mapping[str, Any], n_tokens: int, source: str) -> npt.NDArray[np.uint8]:
    key = "tokenizer.ggml.token_type"
    value = metadata.get(key)
    if value is None:
        raise FileFormatError(
            f"{source}: {key} is missing, so special tokens can't be told from text; "
            "convert the checkpoint again"
        )
    types = value.array if isinstance(value, NumberArray) else _elements(value)
    if types is None or len(types) != n_tokens:
        found = "no array" if types is None else f"an array of {len(types)}"
        raise FileFormatError(
            f"{source}: {key} is {found}, expected {n_tokens} numbers, one for each token"
        )
    known = {int(kind) for kind in TokenType}
    if isinstance(types, np.ndarray) and types.dtype.kind in "iu":
        # They are 1 to 6 without a gap, and looking for each takes longer.
        is_known = (types >= min(known)) & (types <= max(known))
    else:
        is_known = np.array([kind in known for kind in types])
    if not is_known.all():
        bad = int(is_known.argmin())
        raise FileFormatError(f"{source}: {key}[{bad}] is {shown(value[bad])}, expected 1 to 6")
    return np.array(types, np.uint8)


def _index(tokens: StringArray, source: str) -> TokenIndex:
    try:
        return TokenIndex(tokens)
    except DuplicateTokenError as error:
        raise FileFormatError(
            f"{source}: tokenizer.ggml.tokens holds {shown(tokens[error.first])} twice, as token "
            f"{error.first} and as token {error.second}, expected every token once"
        ) from None


def _byte(token: str, i: int, source: str) -> int:
    if not re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token):
        raise FileFormatError(
            f"{source}: token {i} is {shown(token)} and has the type BYTE, expected '<0x00>' to "
            "'<0xFF>'"
        )
    return int(token[1:-1], 16)


def _check_special(special: Mapping[str, int], source: str) -> None:
    if "" in special:
        raise FileFormatError(f"{source}: the special token {special['']} is empty, expected text")
    if len(special) > MAX_SPECIAL:
        raise FileFormatError(
            f"{source}: tokenizer.ggml.token_type marks {len(special)} tokens as special "
            f"(CONTROL or USER_DEFINED), expected at most {MAX_SPECIAL}; the file is damaged"
        )
    longest = max(special, key=len, default="")
    if len(longest) > MAX_SPECIAL_LENGTH:
        raise FileFormatError(
            f"{source}: the special token {special[longest]} has {len(longest)} characters, "
            f"expected at most {MAX_SPECIAL_LENGTH}; the file is damaged"
        )


def _alphabet(tokens: StringArray, source: str) -> npt.NDArray[np.int32]:
    """Returns the ids of the tokens that are single bytes: int32 [256].

    Every byte needs one: the tokenizer would drop what it has no token for.
    """
    most = max(len(character.encode()) for character in CHARACTER_OF_BYTE.values())
    ids: dict[str, int] = {}
    for i in np.flatnonzero(tokens.lengths() <= most).tolist():
        if (token := tokens[i]) in BYTE_OF_CHARACTER:
            ids[token] = i
            if len(ids) == 256:
                break
    for byte, character in CHARACTER_OF_BYTE.items():
        if character not in ids:
            raise FileFormatError(
                f"{source}: tokenizer.ggml.tokens lacks {character!r}, the token of the byte "
                f"0x{byte:02X}, expected one for each of the 256 bytes; the file is damaged"
            )
    return np.array([ids[CHARACTER_OF_BYTE[byte]] for byte in range(256)], np.int32)


def _merges(
    metadata: Mapping[str, Any], tokens: StringArray, types: npt.NDArray[np.uint8], source: str
) -> StringArray:
    if metadata.get("tokenizer.ggml.merges") is None and all(
        len(tokens[i]) == 1 for i in np.flatnonzero(types == TokenType.NORMAL).tolist()
    ):
        return StringArray.of(())
    return _strings(metadata, "merges", source)


def _merge_table(
    index: TokenIndex,
    merges: StringArray,
    tokens: StringArray,
    alphabet: npt.NDArray[np.int32],
    source: str,
) -> MergeTable:
    try:
        return index.merge_table(merges, alphabet)
    except BadMergeError as error:
        raise FileFormatError(_bad_merge(merges, error.number, tokens, source)) from None


def _bad_merge(merges: StringArray, number: int, tokens: StringArray, source: str) -> str:
    """Says what is wrong with a merge."""
    where = f"{source}: tokenizer.ggml.merges[{number}] is {shown(merges[number])}"
    pair = merges[number].split(" ")
    if len(pair) != 2:
        return f"{where}, expected two tokens with a space between"
    known = set(tokens)
    missing = next(part for part in (*pair, "".join(pair)) if part not in known)
    return f"{where}, but {shown(missing)} is not in tokenizer.ggml.tokens"


def _checked_id(value: object, key: str, n_tokens: int, source: str) -> int:
    if type(value) is not int or not 0 <= value < n_tokens:
        raise FileFormatError(
            f"{source}: tokenizer.ggml.{key} is {shown(value)}, expected an id from 0 to "
            f"{n_tokens - 1}"
        )
    return value
