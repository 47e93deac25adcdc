"""The text that a model is calibrated on, as windows of tokens."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import OptionError
from edgeqwen.options import positive_integer
from edgeqwen.quant.checkpoint import Checkpoint

if TYPE_CHECKING:
    from edgeqwen.text.tokenizer import Tokenizer

# Enough to tell how the activations of a layer vary together, for rows as long as the 7B's.
MOST_TOKENS = 32768
# With fewer, what is gained shrinks; on some hundred tokens, plain rounding can be better.
_FEW_TOKENS = 4096
_FEWEST_TOKENS = 64
_WINDOW = 512
# Of longer texts, only pieces become tokens: time and memory are those of what is used.
_SHORT_TEXT = 1 << 18
# What a piece has for each token that is wanted; prose has 4 to 5 characters a token.
_CHARACTERS = 16
# Where neither words nor runs of line ends go on: a piece cut here has the tokens of the text.
_LINE_START = re.compile(r"\n(?=\S)")
_WORD_END = re.compile(r"\S(?=[ \t])")
_CUT_WITHIN = 4096
# Tokens in a row that are there again only where a text repeats itself.
_RUN = 8
_LEAST_NEW = 0.25


def calibration_windows(text: str, checkpoint: Checkpoint, most: int) -> npt.NDArray[np.int64]:
    """Returns token ids, int64 [windows][length]: windows spread over the text, at most ``most``.

    In the text, ``<|im_start|>`` and the like are special tokens. Of a long text, each window is
    the beginning of another piece of it. Raises OptionError for a text that is too short.
    """
    most = max(positive_integer(most, "calibrate_tokens"), _FEWEST_TOKENS)
    tokenizer = _tokenizer(checkpoint)
    length = min(_WINDOW, checkpoint.config.max_context, most)
    wanted = most // length
    if len(text) > max(_SHORT_TEXT, 2 * wanted * length * _CHARACTERS):
        found = list(_spread(text, tokenizer, wanted, length))
        # If no piece fills a window, all of the text has few tokens.
        if found:
            return np.array(found, np.int64)
    tokens = np.array(tokenizer.encode(text, allow_special=True), np.int64)
    if len(tokens) < _FEWEST_TOKENS:
        raise OptionError(
            f"the text to calibrate with has {len(tokens)} tokens, expected at least "
            f"{_FEWEST_TOKENS}, and better {MOST_TOKENS}; give a longer one"
        )
    length = min(length, len(tokens))
    there = len(tokens) // length
    wanted = min(there, most // length)
    starts = np.arange(wanted) * there // wanted * length
    windows: npt.NDArray[np.int64] = tokens[starts[:, None] + np.arange(length)]
    return windows


def calibration_notes(windows: npt.NDArray[np.int64]) -> list[str]:
    """Returns what a report says of the windows: how many there are, and ``cautions``."""
    n = len(windows)
    done = f"calibrated on {windows.size} tokens in {n} {'window' if n == 1 else 'windows'}"
    return [done, *cautions(windows)]


def cautions(windows: npt.NDArray[np.int64]) -> list[str]:
    """Returns sentences on why such windows may make a file worse, instead of better."""
    found = []
    if windows.size < _FEW_TOKENS:
        found.append(
            f"{windows.size} tokens are few to calibrate on: less is gained, and the file may even "
            f"become worse than without; use {_FEW_TOKENS} or more, better {MOST_TOKENS}"
        )
    runs = np.lib.stride_tricks.sliding_window_view(windows, min(_RUN, windows.shape[1]), axis=1)
    runs = runs.reshape(-1, runs.shape[-1])
    share = len(np.unique(runs, axis=0)) / len(runs)
    if share < _LEAST_NEW:
        found.append(
            f"the text to calibrate with repeats itself, only {100 * share:.2g}% of it is new: the "
            "file may become worse than without; use a text that says more"
        )
    return found


def _tokenizer(checkpoint: Checkpoint) -> "Tokenizer":
    from edgeqwen.text.tokenizer import Tokenizer
    from edgeqwen.text.vocabulary import Vocabulary

    source = str(checkpoint.files[0]) if checkpoint.files else "the source"
    # A GGUF source keeps arrays of numbers as they are; a vocabulary is read from sequences.
    metadata = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in checkpoint.metadata.items()
    }
    return Tokenizer(Vocabulary.from_gguf(metadata, source=source))


def _spread(text: str, tokenizer: "Tokenizer", n: int, length: int) -> Iterator[list[int]]:
    """Yields the first ``length`` tokens of each of n equal parts that has so many."""
    for i in range(n):
        first, stop = i * len(text) // n, (i + 1) * len(text) // n
        begin = end = _cut(text, first, stop) if i else 0
        tokens: list[int] = []
        size = length * _CHARACTERS
        while len(tokens) < length and end < stop:
            end = _cut(text, begin + size, stop)
            tokens = tokenizer.encode(text[begin:end], allow_special=True)
            size *= 2
        if len(tokens) >= length:
            yield tokens[:length]


def _cut(text: str, at: int, stop: int) -> int:
    """Returns a place from ``at`` on, and up to ``stop``, where a text may be cut.

    That is where a line begins, else where a word ends, else ``at``; not much further.
    """
    if at >= stop:
        return stop
    for pattern in (_LINE_START, _WORD_END):
        found = pattern.search(text, max(at - 1, 0), min(at + _CUT_WITHIN, stop))
        if found is not None:
            return found.end()
    return at
