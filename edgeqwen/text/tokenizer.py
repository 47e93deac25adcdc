"""The tokenizer of a Qwen2.5 model, made from the tokens and merges in its own GGUF file."""

import operator
import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from edgeqwen.errors import OptionError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.text.byte_level import bytes_of
from edgeqwen.text.streaming import IncrementalDecoder
from edgeqwen.text.vocabulary import Vocabulary

# How Qwen2 cuts text into words before any merge: contractions, letters with one leading
# character, single digits, punctuation with its line ends, line ends, other white space.
_WORDS = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
# Normalises to NFC and marks where each word ends: \K leaves out of the match all that was found
# before it. The library needs a fifth of the time for this that it needs for a list of words.
_MARK = "\0"
_MARKING = normalizers.Sequence(
    [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(rf"(?:{_WORDS})\K"), _MARK)]
)
# The same for a text that holds the mark itself: a list of words, with a byte between that no UTF-8
# has.
_NFC = normalizers.NFC()
_SPLIT = pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="isolated")
_NO_TEXT = b"\xff"


class Tokenizer:
    """Text to token ids and back. Safe to use from several threads.

    ``special``: ids of the special tokens by text. ``eos_ids``: the tokens that end an answer.
    ``bos_id``: what the file calls its first token, for templates; ``encode`` never adds it.
    """

    vocab_size: int
    special: dict[str, int]
    eos_ids: frozenset[int]
    bos_id: int | None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.vocab_size = len(vocabulary.tokens)
        self.special = vocabulary.control | vocabulary.user_defined
        self.eos_ids = vocabulary.eos_ids
        self.bos_id = vocabulary.bos_id
        self._control_ids = frozenset(vocabulary.control.values())
        self._special_ids = frozenset(self.special.values())
        # The longest first: where two of them begin at the same place, the longer one counts.
        longest_first = sorted(self.special, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @classmethod
    def from_gguf(cls, path_or_file: str | Path | GgufFile) -> "Tokenizer":
        """Makes the tokenizer of a GGUF file; one that holds only a vocabulary will do.

        Raises FileFormatError for a damaged vocabulary and UnsupportedError for another kind.
        """
        if not isinstance(path_or_file, GgufFile):
            with GgufFile.open(path_or_file) as file:
                return cls.from_gguf(file)
        source = str(path_or_file.path)
        return cls(Vocabulary.from_gguf(path_or_file.metadata, source=source))

    @property
    def user_defined(self) -> dict[str, int]:
        """The special tokens that are part of answers, such as ``<tool_call>``, by text."""
        return self._vocabulary.user_defined

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Returns the token ids of a text, which is normalised to NFC first.

        ``allow_special``: whether ``<|im_end|>`` and the like become special tokens; otherwise
        they are text as any other. Raises OptionError for a lone surrogate.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise OptionError(
                f"the text holds a lone surrogate, U+{ord(text[error.start]):04X}, at character "
                f"{error.start}: it is no valid Unicode; decode the input with errors='replace'"
            ) from None
        if not allow_special:
            return self._encode_words(text)
        ids: list[int] = []
        end = 0
        for match in self._special_pattern.finditer(text):
            ids += self._encode_words(text[end : match.start()])
            ids.append(self.special[match.group()])
            end = match.end()
        return ids + self._encode_words(text[end:])

    def _encode_words(self, text: str) -> list[int]:
        if not text:
            return []
        if _MARK not in text:
            words, separator = _MARKING.normalize_str(text).encode(), _MARK.encode()
        else:
            found = _SPLIT.pre_tokenize_str(_NFC.normalize_str(text))
            words, separator = _NO_TEXT.join(word.encode() for word, _ in found), _NO_TEXT
        return self._vocabulary.merges.merged(words, separator[0])

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Returns the text of token ids; bytes that are no UTF-8 become U+FFFD.

        ``skip_special``: leave out control tokens such as ``<|im_end|>``, but not those that
        belong to an answer (``<tool_call>``). Raises OptionError for an unknown id.
        """
        known = [self._checked(id) for id in ids]
        return b"".join(
            self._bytes(id) for id in known if not (skip_special and id in self._control_ids)
        ).decode(errors="replace")

    def stream(self, *, skip_special: bool = False) -> IncrementalDecoder:
        """Returns a decoder for tokens that come one at a time."""
        return IncrementalDecoder(self, skip_special=skip_special)

    def token_bytes(self, id: int) -> bytes:
        """Returns the bytes that a token adds to the text: none for an unused one.

        Raises OptionError for an unknown id.
        """
        return self._bytes(self._checked(id))

    def skips(self, id: int) -> bool:
        """Tells whether ``skip_special`` leaves this token out."""
        return id in self._control_ids

    def _checked(self, id: int) -> int:
        number = operator.index(id)
        if not 0 <= number < self.vocab_size:
            raise OptionError(
                f"token id {id}: expected 0 to {self.vocab_size - 1}, "
                f"the ids in {self._vocabulary.source}"
            )
        return number

    def _bytes(self, id: int) -> bytes:
        vocabulary = self._vocabulary
        if id in vocabulary.unused:
            return b""
        if id in vocabulary.byte_ids:
            return bytes([vocabulary.byte_ids[id]])
        token = vocabulary.tokens[id]
        # A special token is written as it is, not in the alphabet of the others.
        return token.encode() if id in self._special_ids else bytes_of(token)

    def __repr__(self) -> str:
        return f"<Tokenizer {self._vocabulary.source}: {self.vocab_size} tokens>"
