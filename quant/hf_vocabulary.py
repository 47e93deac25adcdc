"""The vocabulary of a Hugging Face folder: tokenizer.json, or vocab.json with merges.txt."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from edgeqwen.config_keys import printable, shown
from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.quant.json_file import MAX_TOKENIZER_BYTES, read_json, read_text

# How Qwen2 splits text before it looks for merges; GGUF files say "qwen2" instead.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Options of a BPE model that change its result and that GGUF has no word for.
_UNSUPPORTED_OPTIONS = (
    "byte_fallback",
    "continuing_subword_prefix",
    "dropout",
    "end_of_word_suffix",
    "ignore_merges",
)
# The letters of byte-level BPE: printable Latin-1 bytes are themselves, the 68 others (control
# characters, spaces, the soft hyphen) follow each other from U+0100 on.
_LETTERS = frozenset(map(chr, (*range(33, 127), *range(161, 173), *range(174, 256 + 68))))


class TokenType(IntEnum):
    """What kind of token it is, by the numbers that GGUF uses."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, filled up to the size of the embedding, and the merges, best first."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    ids: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Added:
    id: int
    text: str
    special: bool


def read_vocabulary(folder: Path, settings: Mapping[str, Any], vocab_size: int) -> Vocabulary:
    """Reads and checks the vocabulary of a folder.

    ``settings`` is what tokenizer_config.json holds. Raises FileFormatError if files are missing
    or contradict each other, UnsupportedError for tokenizers that don't work as Qwen2's does.
    """
    if (folder / "tokenizer.json").exists():
        path = folder / "tokenizer.json"
        vocab, merges, added = _read_fast(path)
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        path = folder / "vocab.json"
        vocab = read_json(path, MAX_TOKENIZER_BYTES)
        merges = _read_merges(folder / "merges.txt")
        added = _added_in_settings(folder, settings)
    else:
        raise FileFormatError(
            f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt"
        )
    return _assemble(path, vocab, merges, added, vocab_size)


def _read_fast(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]], list[_Added]]:
    content = read_json(path, MAX_TOKENIZER_BYTES)
    model = content.get("model")
    if not isinstance(model, dict):
        raise FileFormatError(f"{path}: model is {shown(model)}, expected an object")
    if model.get("type", "BPE") != "BPE":
        raise UnsupportedError(
            f"{path}: a tokenizer of the type {shown(model['type'])}; only 'BPE' can be converted"
        )
    for option in _UNSUPPORTED_OPTIONS:
        if model.get(option):
            raise UnsupportedError(
                f"{path}: model.{option} is {shown(model[option])}, which GGUF can't say"
            )
    _check_splitting(path, content.get("pre_tokenizer"))
    vocab, merges, added = model.get("vocab"), model.get("merges"), content.get("added_tokens")
    if not isinstance(vocab, dict):
        raise FileFormatError(f"{path}: model.vocab is {shown(vocab)}, expected an object")
    if not isinstance(merges, list):
        raise FileFormatError(f"{path}: model.merges is {shown(merges)}, expected a list")
    if not isinstance(added, list | None):
        raise FileFormatError(f"{path}: added_tokens is {shown(added)}, expected a list")
    return vocab, [_merge(path, merge) for merge in merges], [_added(path, a) for a in added or ()]


def _check_splitting(path: Path, splitting: Any) -> None:
    """Refuses a tokenizer that splits text differently from Qwen2's."""
    steps = splitting if isinstance(splitting, dict) else {}
    parts = steps.get("pretokenizers", [steps])
    parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if [part.get("type") for part in parts] != ["Split", "ByteLevel"]:
        kinds = ", ".join(shown(part.get("type")) for part in parts[:8])
        raise UnsupportedError(
            f"{path}: pre_tokenizer consists of {kinds or 'nothing'}, expected 'Split', "
            "'ByteLevel' as Qwen2 has them"
        )
    pattern = parts[0].get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, dict) else None
    if regex != SPLIT_PATTERN:
        raise UnsupportedError(
            f"{path}: pre_tokenizer splits text at {shown(regex)}, which isn't what Qwen2 does"
        )


def _merge(path: Path, merge: Any) -> tuple[str, str]:
    """Returns the two tokens of a merge, from either form: "a b" or ["a", "b"]."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2:
        first, second = parts
        if isinstance(first, str) and isinstance(second, str) and " " not in first + second:
            return first, second
    raise FileFormatError(f"{path}: {shown(merge)} among the merges, expected two tokens")


def _added(path: Path, entry: Any) -> _Added:
    if isinstance(entry, dict):
        id_, text, special = (entry.get(key) for key in ("id", "content", "special"))
        if type(id_) is int and isinstance(text, str) and isinstance(special, bool):
            return _Added(id_, text, special)
    raise FileFormatError(
        f"{path}: {shown(entry)} among the added tokens, expected id, content and special"
    )


def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = read_text(path, MAX_TOKENIZER_BYTES).split("\n")
    # Only the first line can be a comment: "#" is a token like any other.
    start = 1 if lines[0].startswith("#version") else 0
    return [_merge(path, line.rstrip("\r")) for line in lines[start:] if line.rstrip("\r")]


def _added_in_settings(folder: Path, settings: Mapping[str, Any]) -> list[_Added]:
    path = folder / "tokenizer_config.json"
    entries = settings.get("added_tokens_decoder")
    if not isinstance(entries, dict):
        raise FileFormatError(
            f"{path}: added_tokens_decoder is {shown(entries)}, expected the added tokens by id"
        )
    found = []
    for key, entry in entries.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and isinstance(entry, dict)):
            raise FileFormatError(
                f"{path}: added_tokens_decoder holds {shown(key)}: {shown(entry)}, expected an id "
                "and a token"
            )
        found.append(_added(path, {"special": False, **entry, "id": int(key)}))
    return found


def _assemble(
    path: Path,
    vocab: Mapping[str, Any],
    merges: list[tuple[str, str]],
    added: Iterable[_Added],
    vocab_size: int,
) -> Vocabulary:
    tokens: list[str | None] = [None] * vocab_size
    types = [int(TokenType.NORMAL)] * vocab_size
    for text, id_ in vocab.items():
        if type(id_) is not int or not 0 <= id_ < vocab_size or tokens[id_] is not None:
            raise _misplaced(path, tokens, text, id_)
        tokens[id_] = text
    _check_merges(path, vocab, merges)
    for token in added:
        # Some files list the added tokens in the vocabulary as well.
        again = vocab.get(token.text) == token.id
        if not 0 <= token.id < vocab_size or (tokens[token.id] is not None and not again):
            raise _misplaced(path, tokens, token.text, token.id)
        tokens[token.id] = token.text
        types[token.id] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
    # The embedding has more rows than there are tokens: training likes round numbers.
    filled = [f"[PAD{i}]" if text is None else text for i, text in enumerate(tokens)]
    types = [TokenType.UNUSED if tokens[i] is None else kind for i, kind in enumerate(types)]
    ids = {text: i for i, text in enumerate(filled)}
    if len(ids) != vocab_size:
        i = next(i for i, text in enumerate(filled) if ids[text] != i)
        raise FileFormatError(
            f"{path}: the token {shown(filled[i])} has two ids, {i} and {ids[filled[i]]}"
        )
    _check_texts(path, filled, types)
    return Vocabulary(filled, types, [f"{first} {second}" for first, second in merges], ids)


def _misplaced(path: Path, tokens: list[str | None], text: str, id_: Any) -> FileFormatError:
    if type(id_) is int and 0 <= id_ < len(tokens):
        return FileFormatError(
            f"{path}: {shown(tokens[id_])} and {shown(text)} both have the id {id_}"
        )
    return FileFormatError(
        f"{path}: the token {shown(text)} has the id {shown(id_)}, expected 0 to "
        f"{len(tokens) - 1} (vocab_size is {len(tokens)} in config.json)"
    )


def _check_texts(path: Path, tokens: list[str], types: list[int]) -> None:
    """Refuses tokens that can't be stored, or that aren't written in byte-level BPE's letters."""
    for id_, (text, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == TokenType.NORMAL:
            if not _LETTERS.issuperset(text) or not text:
                raise UnsupportedError(
                    f"{path}: the token {id_}, {shown(text)}, isn't written in the letters of "
                    "byte-level BPE"
                )
        elif not text or any("\ud800" <= c <= "\udfff" for c in text):
            raise FileFormatError(
                f"{path}: the added token {id_} is {printable(text)!r}, expected text that UTF-8 "
                "can say"
            )


def _check_merges(path: Path, vocab: Mapping[str, Any], merges: list[tuple[str, str]]) -> None:
    for rank, (first, second) in enumerate(merges):
        for part in (first, second, first + second):
            if part not in vocab:
                raise FileFormatError(
                    f"{path}: merge {rank} is {shown(f'{first} {second}')}, but {shown(part)} is "
                    "no token"
                )
