"""Text from tokens that come one at a time: only whole characters are let out."""

import codecs
from typing import Protocol


class _Tokens(Protocol):
    def token_bytes(self, id: int) -> bytes: ...

    def skips(self, id: int) -> bool: ...


class IncrementalDecoder:
    """Turns token ids into text piece by piece; the pieces together are what ``decode`` gives.

    A character may lie across several tokens: its bytes wait for the rest. Bytes that can't
    become a character turn into U+FFFD, as soon as that is certain.
    """

    def __init__(self, tokenizer: _Tokens, *, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """Returns the characters that this token completes; OptionError for an unknown id."""
        data = self._tokenizer.token_bytes(id)
        if self._skip_special and self._tokenizer.skips(id):
            return ""
        return self._utf8.decode(data)

    def flush(self) -> str:
        """Returns what still waits, as U+FFFD, and starts anew."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
